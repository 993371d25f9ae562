package daemon

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/slipwaybuild/slipway/session/peer"
)

// gatewayWait is how long a driver may be ahead of its build: clients send Solve and the first call to the bridge at the same time.
const gatewayWait = 10 * time.Second

// gateways knows the builds that are driven now.
type gateways struct {
	mu      sync.Mutex
	byRef   map[string]*Gateway
	arrived chan struct{} // closed and replaced whenever one is added
}

func newGateways() *gateways {
	return &gateways{byRef: map[string]*Gateway{}, arrived: make(chan struct{})}
}

// add makes a build's gateway found. Refs of builds that run are unique.
func (g *gateways) add(ref string, gw *Gateway) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.byRef[ref] = gw
	close(g.arrived)
	g.arrived = make(chan struct{})
}

func (g *gateways) remove(ref string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.byRef, ref)
}

// find waits for a build that has not begun.
func (g *gateways) find(ctx context.Context, ref string) (*Gateway, error) {
	wait := time.NewTimer(gatewayWait)
	defer wait.Stop()
	for {
		g.mu.Lock()
		gw, arrived := g.byRef[ref], g.arrived
		g.mu.Unlock()
		if gw != nil {
			return gw, nil
		}
		select {
		case <-arrived:
		case <-wait.C:
			return nil, fmt.Errorf("%w that its client drives: %q", ErrNoBuild, ref)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Gateway finds the build that a client drives, waiting for one that has not begun. It stays the build's. Another client's build is not
// found.
func (e *Engine) Gateway(ctx context.Context, who peer.Identity, ref string) (*Gateway, error) {
	g, err := e.gateways.find(ctx, ref)
	if err == nil && g.owner != who {
		return nil, fmt.Errorf("%w that its client drives: %q", ErrNoBuild, ref)
	}
	return g, err
}

// drive opens the build to its client until the build closes.
func (b *build) drive(ctx context.Context, r Request) {
	req := frontendRequest(r)
	b.gateway = newGateway(ctx, b.scoped(b, nil, b.engine.producers.request("", req)), req)
	b.gateway.owner = r.Owner
	b.engine.gateways.add(b.ref, b.gateway)
}

// undrive ends the client's calls, if there can be any.
func (b *build) undrive() error {
	if b.gateway == nil {
		return nil
	}
	b.engine.gateways.remove(b.ref)
	return b.gateway.end()
}
