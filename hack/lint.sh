#!/usr/bin/env bash
# Runs the linter, built from its own module so that nobody who builds Slipway carries it.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p bin
(cd hack/tools/lint && go build -o ../../../bin/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint)
exec bin/golangci-lint run "$@"
