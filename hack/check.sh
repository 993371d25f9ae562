#!/usr/bin/env bash
# Everything a reviewer would check by machine.
set -euo pipefail
cd "$(dirname "$0")/.."
step() { echo "== $*"; }

step gofmt
unformatted=$(gofmt -l $(git ls-files '*.go'))
[ -z "$unformatted" ] || { echo "not formatted: $unformatted"; exit 1; }

step go mod tidy
cp go.mod go.sum "${TMPDIR:-/tmp}/"
go mod tidy
if ! cmp -s go.mod "${TMPDIR:-/tmp}/go.mod" || ! cmp -s go.sum "${TMPDIR:-/tmp}/go.sum"; then
  echo "go.mod or go.sum is not tidy: run go mod tidy"
  exit 1
fi

step go vet
go vet ./...

step import rules
go test -count=1 ./hack/rules

step golangci-lint
hack/lint.sh ./...

step shell scripts
for script in $(git ls-files '*.sh' .ci/run); do bash -n "$script"; done
