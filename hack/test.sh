#!/usr/bin/env bash
# Installs what the tests need and runs them all, under the race detector. Arguments go to go test instead of ./...
set -euo pipefail
cd "$(dirname "$0")/.."
hack/install.sh gcc libc6-dev runc busybox-static git openssh-client openssh-server skopeo umoci docker-registry attr erofs-utils xz-utils bzip2 zstd curl mmdebstrap ca-certificates docker.io python3-docker containernetworking-plugins iptables iproute2 qemu-user-static binfmt-support
export CGO_ENABLED=1 # the race detector needs it
packages=("$@")
[ ${#packages[@]} -gt 0 ] || packages=(./...)
command -v containerd >/dev/null || hack/install.sh containerd # a package of another name will do
# Tests that mount and run containers share one kernel: few packages at a time keep them from waiting for each other. Those with real
# programs come after: what the race detector would watch there is not the daemon.
if [ "${packages[*]}" != ./... ]; then
  go test -race -p 2 -timeout 15m "${packages[@]}"
  exit
fi
mapfile -t units < <(go list ./... | grep -v '/hack/e2e$')
go test -race -p 2 -timeout 15m "${units[@]}"
go test -timeout 30m ./hack/e2e

# Once more with images in a containerd: what stores images or builds on them.
SLIPWAY_E2E_CONTAINERD=1 go test -timeout 15m -count=1 ./hack/e2e -run '^Test(Example|Image|Reproducible|Layers|Pinned|Push|Registry|Output)'
