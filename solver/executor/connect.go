package executor

import (
	"context"
	"fmt"

	"github.com/slipwaybuild/slipway/solver/executor/network"
)

// ownNetwork says whether the step has a network namespace that is not the host's.
func (s *step) ownNetwork() bool {
	switch s.spec.Network {
	case NetworkHost:
		return false
	case NetworkNone:
		return true
	}
	return s.r.o.Network != nil && s.r.o.Network.Mode() != network.Host
}

// connect gives a step of the default network its namespace, where there are such. What it returns gives it back; that this fails is
// no fault of the step.
func (s *step) connect(ctx context.Context, c *container) (disconnect func(), err error) {
	if s.spec.Network != NetworkDefault || s.r.o.Network == nil || !s.r.o.Network.Own() {
		return func() {}, nil
	}
	ns, err := s.r.o.Network.Take(ctx)
	if err != nil {
		return nil, fmt.Errorf("network of step: %w", err)
	}
	c.netns = ns.Path()
	// An insecure step may have changed addresses, routes and filters.
	same := s.spec.Security == SecuritySandbox
	return func() {
		if err := ns.Release(same); err != nil {
			s.r.log.ErrorContext(ctx, "network of step", "id", s.id, "error", err)
		}
	}, nil
}
