package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"

	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/slipwaybuild/slipway/frontend"
	"github.com/slipwaybuild/slipway/frontend/gateway"
	"github.com/slipwaybuild/slipway/session/peer"
	"github.com/slipwaybuild/slipway/solver/ops"
)

// Gateway is a build as seen by whoever drives it over gRPC: it asks what a frontend may ask of its bridge, names references by
// ids that mean something in this build only, and ends the asking with Return. All methods are safe for concurrent use; once the
// build has ended they fail with [ErrNoBuild].
type Gateway struct {
	gwpb.UnimplementedLLBBridgeServer

	owner  peer.Identity // who drives; does not change once the gateway can be found
	bridge frontend.Bridge
	client *gateway.Client
	inputs map[string]*pb.Definition
	refs   handles

	containers drivenContainers

	// life ends with the build, and every call with it: a call may use what the build holds.
	life   context.Context
	finish context.CancelCauseFunc

	mu       sync.Mutex
	ended    bool
	calls    sync.WaitGroup
	returned chan struct{} // closed when the outcome is there
	outcome  outcome
}

// outcome is what the driver returned, either of the two.
type outcome struct {
	result *frontend.Result
	err    error
}

// newGateway opens a bridge to a driver. The caller ends it, before whatever the bridge stands on.
func newGateway(ctx context.Context, b frontend.Bridge, r frontend.Request) *Gateway {
	life, finish := context.WithCancelCause(ctx)
	return &Gateway{
		bridge: b, client: gateway.NewClient(b, r, gateway.NewCaps(ops.Caps(), frontendCaps())), inputs: r.Inputs,
		life: life, finish: finish, returned: make(chan struct{}),
	}
}

// wait returns what the driver returns. A driver that goes away is a ctx that ends.
func (g *Gateway) wait(ctx context.Context) (*frontend.Result, error) {
	select {
	case <-g.returned:
		return g.outcome.result, g.outcome.err
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the client's result: %w", context.Cause(ctx))
	}
}

// end cancels the calls under way, waits for them and releases the containers that are left.
func (g *Gateway) end() error {
	g.mu.Lock()
	g.ended = true
	g.mu.Unlock()
	g.finish(ErrNoBuild)
	g.calls.Wait()
	var errs []error
	for _, c := range g.containers.close() {
		errs = append(errs, c.Release(context.Background()))
	}
	return errors.Join(errs...)
}

// call runs one call for the driver: it ends with the caller or the build, whichever is first.
func call[T any](ctx context.Context, g *Gateway, do func(context.Context) (T, error)) (res T, err error) {
	g.mu.Lock()
	if g.ended {
		g.mu.Unlock()
		return res, fmt.Errorf("%w: it has ended", ErrNoBuild)
	}
	g.calls.Add(1)
	g.mu.Unlock()
	defer g.calls.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(g.life, func() { cancel(context.Cause(g.life)) })()
	res, err = do(ctx)
	if b := buildBehind(g.bridge); b != nil {
		err = mask(b.values.Matcher(), err)
	}
	return res, err
}

// settle keeps the first outcome and wakes whoever waits for it.
func (g *Gateway) settle(o outcome) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.returned:
		return ErrReturned
	default:
	}
	g.outcome = o
	close(g.returned)
	return nil
}

// ErrReturned is the answer to a second Return.
var ErrReturned = errors.New("the build's result was returned already")

// refOf finds a reference that this build gave out; the empty id is the reference to nothing.
func (g *Gateway) refOf(id string) (gwclient.Reference, error) {
	if id == "" {
		return nil, nil
	}
	return g.refs.find(id)
}
