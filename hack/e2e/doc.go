// Package e2e tries Slipway as a user does: real programs, a real daemon with a root of its own, a real OCI runtime, a registry on
// loopback. The tests need root, runc and a static busybox, and say so when they skip.
package e2e
