package daemon

import (
	"context"
	"errors"
	"slices"
	"sync"

	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/ops"
	fstypes "github.com/tonistiigi/fsutil/types"
)

// references are those a build gave out. They live as long as it does.
type references struct {
	mu   sync.Mutex
	list []*reference
}

func (r *references) add(ref *reference) *reference {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, ref)
	return ref
}

// all are those given out so far.
func (r *references) all() []*reference {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.list)
}

func (r *references) release() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, ref := range r.list {
		errs = append(errs, ref.release())
	}
	r.list = nil
	return errors.Join(errs...)
}

// lost tells whether a layer of what was solved turned out to be gone.
func (r *references) lost() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ref := range r.list {
		if ref.lost() {
			return true
		}
	}
	return false
}

// reference is one output of a graph, solved when someone first asks.
type reference struct {
	build *build
	def   *pb.Definition
	graph *ops.Graph
	scope *scope // of the frontend that asked for it; nil for the client
	aside bool   // what speaks of the result is no part of what it was made of

	mu       sync.Mutex
	result   solver.Result
	former   []solver.Result // found lost; what was made of them may be in use
	solved   bool
	released bool
}

// Definition returns the graph it came from.
func (r *reference) Definition() *pb.Definition { return r.def }

// Evaluate solves the reference.
func (r *reference) Evaluate(ctx context.Context) error {
	_, err := r.layers(ctx)
	return err
}

// layers solves the reference and returns its stack, which stays the reference's; nil for nothing.
func (r *reference) layers(ctx context.Context) (*layers.Ref, error) {
	r.mu.Lock()
	solved, result := r.solved, r.result
	r.mu.Unlock()
	if solved && !r.lost() {
		return refOf(result), nil
	}
	if r.graph.Edge().Vertex == nil {
		return nil, nil
	}
	r.build.learn(ctx, r.graph)
	// Asked without the lock: the solver answers each edge once, and a second asker must be free to give up.
	result, err := r.build.solver.Result(ctx, r.graph.Edge())
	if err != nil {
		return nil, r.failure(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.solved && refOf(r.result) != nil && refOf(r.result).Lost() != nil {
		r.former = append(r.former, r.result)
		r.result, r.solved = nil, false
	}
	if r.solved || r.released {
		if result != nil {
			_ = result.Release()
		}
		return refOf(r.result), nil
	}
	r.solved, r.result = true, result
	return refOf(result), nil
}

// used tells whether the result of the build was made with the reference.
func (r *reference) used() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.solved && !r.aside
}

func refOf(result solver.Result) *layers.Ref {
	if result == nil {
		return nil
	}
	return ops.RefOf(result)
}

// lost tells whether a layer of the result turned out to be gone.
func (r *reference) lost() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	ref := refOf(r.result)
	return r.solved && ref != nil && ref.Lost() != nil
}

func (r *reference) release() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.released = true
	var errs []error
	for _, result := range append(r.former, r.result) {
		if result != nil {
			errs = append(errs, result.Release())
		}
	}
	r.result, r.former, r.solved = nil, nil, false
	return errors.Join(errs...)
}

// ReadFile reads a file of the result.
func (r *reference) ReadFile(ctx context.Context, req gwclient.ReadRequest) ([]byte, error) {
	ref, err := r.layers(ctx)
	if err != nil {
		return nil, err
	}
	return r.build.engine.factory.ReadFile(ctx, ref, r.sessions, req)
}

// StatFile describes a file of the result.
func (r *reference) StatFile(ctx context.Context, req gwclient.StatRequest) (*fstypes.Stat, error) {
	ref, err := r.layers(ctx)
	if err != nil {
		return nil, err
	}
	return r.build.engine.factory.StatFile(ctx, ref, r.sessions, req)
}

// ReadDir lists a directory of the result.
func (r *reference) ReadDir(ctx context.Context, req gwclient.ReadDirRequest) ([]*fstypes.Stat, error) {
	ref, err := r.layers(ctx)
	if err != nil {
		return nil, err
	}
	return r.build.engine.factory.ReadDir(ctx, ref, r.sessions, req)
}

func (r *reference) sessions() *session.Group { return r.build.sessions }
