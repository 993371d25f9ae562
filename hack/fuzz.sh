#!/usr/bin/env bash
# Runs every fuzz target for a short while (FUZZTIME, 10s). What it finds is kept as a seed beside the test.
#
# Left alone, the fuzzer spends up to a minute on making each new input smaller, one byte after the other, and tries no other
# meanwhile: of inputs like tars it then tries less than one a second. A bounded number of attempts keeps it at thousands.
set -euo pipefail
cd "$(dirname "$0")/.."
for dir in $(git grep -lE '^func Fuzz' -- '*_test.go' | xargs -n1 dirname | sort -u); do
  for target in $(grep -hoE '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go | sed 's/^func //'); do
    echo "== $dir $target"
    go test "./$dir" -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-10s}" -fuzzminimizetime "${FUZZMINIMIZE:-50x}"
  done
done
