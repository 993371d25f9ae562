#!/usr/bin/env bash
# Slipway builds Slipway: examples/self in a Debian root file system made here (no registry is needed), with this machine's Go
# toolchain, certificates and module proxy. The programs go to .demo/self. Further arguments go to slipway build.
set -euo pipefail
unset DOCKER_HOST DOCKER_CONTEXT # what is shown is slipwayd, not Docker's daemon
cd "$(dirname "$0")/.."
hack/install.sh mmdebstrap ca-certificates runc
make --no-print-directory build
base=.demo/debian
if [ ! -e "$base/etc/debian_version" ]; then
  mkdir -p .demo
  echo "making a Debian root file system"
  mmdebstrap --quiet --variant=minbase --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$base.tar"
  mkdir -p "$base"
  tar -xf "$base.tar" -C "$base" --exclude './dev/*'
  rm "$base.tar"
fi
exec bin/slipway build -f examples/self/Dockerfile \
  --build-context debian:bookworm-slim="$base" \
  --build-context golang="$(go env GOROOT)" \
  --build-context certs=/etc/ssl/certs \
  --build-arg GOPROXY="$(go env GOPROXY)" --build-arg GOSUMDB="$(go env GOSUMDB)" \
  -o .demo/self "$@" .
