package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/slipwaybuild/slipway/solver/layers/images/containerdtest"
)

// inContainerd is the variable that makes every daemon of the suite keep its images in a containerd.
const inContainerd = "SLIPWAY_E2E_CONTAINERD"

// shared is the containerd of all daemons, each with a namespace of its own; nil if they keep their images themselves.
var shared *containerdtest.Server

// namespaces counts those in use.
var namespaces atomic.Int32

// startContainerd starts the shared containerd if the suite is to run with one. end must be called.
func startContainerd() (end func() error, err error) {
	if os.Getenv(inContainerd) == "" {
		return func() error { return nil }, nil
	}
	if err := containerdtest.Missing(); err != nil {
		return nil, fmt.Errorf("%s is set: %w", inContainerd, err)
	}
	if shared, err = containerdtest.Start(); err != nil {
		return nil, err
	}
	return shared.Close, nil
}

// newContainerd starts a containerd of one test.
func newContainerd(t *testing.T) *containerdtest.Server {
	t.Helper()
	if err := containerdtest.Missing(); err != nil {
		t.Skip(err)
	}
	s, err := containerdtest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("end containerd: %v", err)
		}
	})
	return s
}

// useContainerd makes a daemon that is not started yet keep its images in s.
func (d *daemon) useContainerd(s *containerdtest.Server) {
	d.containerd = s
	d.namespace = fmt.Sprintf("e2e-%d", namespaces.Add(1))
	d.args = append(d.args, "--containerd", s.Address, "--containerd-namespace", d.namespace)
}

// ctr runs containerd's own client in the daemon's namespace.
func (d *daemon) ctr(args ...string) string {
	d.t.Helper()
	out, err := d.containerd.Ctr(context.WithoutCancel(d.t.Context()), d.namespace, args...)
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

// checkNoLeases looks for leases that should have ended with what they were for.
func (d *daemon) checkNoLeases() {
	d.t.Helper()
	for line := range strings.Lines(d.ctr("leases", "ls")) {
		if strings.Contains(line, "slipway/temporary") {
			d.t.Errorf("lease left behind: %s", line)
		}
	}
}

// broughtFor is how many of n layers at registries are brought for an image that is stored and not read: a containerd gets them
// all, for its other users.
func (d *daemon) broughtFor(n int) int {
	if d.containerd == nil {
		return 0
	}
	return n
}
