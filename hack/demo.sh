#!/usr/bin/env bash
# The first thing a newcomer runs: installs what is missing, builds both programs, and builds examples/hello with them, once to
# a directory and once to an image archive. The daemon is started on demand and leaves by itself. A second run finds every
# step in the cache.
set -euo pipefail
unset DOCKER_HOST DOCKER_CONTEXT # what is shown is slipwayd, not Docker's daemon
cd "$(dirname "$0")/.."
hack/install.sh runc busybox-static ca-certificates
make --no-print-directory build

out=.demo
mkdir -p "$out/busybox"
# A file that did not change is not copied again, so that its times stay what they were.
cmp -s "$(command -v busybox)" "$out/busybox/busybox" || cp "$(command -v busybox)" "$out/busybox/busybox"
rm -rf "$out/files"

slipway() {
  echo "+ slipway $*"
  bin/slipway "$@"
}
slipway build --build-context busybox="$out/busybox" --build-arg GREETING="Hello from Slipway" -o "$out/files" examples/hello
slipway build --build-context busybox="$out/busybox" --build-arg GREETING="Hello from Slipway" -t hello -o type=oci,dest="$out/hello.tar" examples/hello

echo
echo "the directory $out/files:"
find "$out/files" -type f -printf '  %P (%s bytes)\n' | sort
sed 's/^/    /' "$out/files/greeting.txt"
echo "the archive $out/hello.tar:"
tar -tvf "$out/hello.tar" | sed 's/^/  /'
