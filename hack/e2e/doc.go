// Package e2e tries Slipway as a user does: real programs, a real daemon with a root of its own, a real OCI runtime, a registry on
// loopback. The tests need root, runc and a static busybox, and say so when they skip.
//
// With SLIPWAY_E2E_CONTAINERD=1 every daemon keeps its images in a containerd, the host's program run for the suite.
package e2e
