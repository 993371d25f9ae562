package ops

import (
	"context"
	"errors"
	"fmt"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/progress"
	"github.com/slipwaybuild/slipway/solver/source"
)

// sessions returns those of the builds that wait for call at this moment. Builds are made with a *session.Group as lender.
func sessions(call solver.Call) func() *session.Group {
	return func() *session.Group {
		var groups []*session.Group
		for _, l := range call.Lenders() {
			if g, ok := l.(*session.Group); ok && g != nil {
				groups = append(groups, g)
			}
		}
		return session.Join(groups...)
	}
}

func envOf(call solver.Call) source.Env {
	return source.Env{Sessions: sessions(call), Progress: call.Progress()}
}

// fetch brings the lazy layers of a stack; it costs nothing when there are none.
func (f *Factory) fetch(ctx context.Context, ref *layers.Ref, group func() *session.Group, p progress.Writer) error {
	lazy := false
	if ref != nil {
		for _, l := range ref.Layers() {
			lazy = lazy || l.Kind == layers.Remote
		}
	}
	if !lazy {
		return nil
	}
	if f.fetcher == nil {
		return fmt.Errorf("fetch layers: %w", layers.ErrNotLocal)
	}
	return f.store.Fetch(ctx, ref, f.fetcher(group), p)
}

// fetchInput is fetch for input i of an op: layers that are gone for good are a lost input, which the solver makes again.
func (f *Factory) fetchInput(ctx context.Context, call solver.Call, i int, r solver.Result) error {
	return lost(i, f.fetch(ctx, RefOf(r), sessions(call), call.Progress()))
}

// lost turns the absence of layers into the loss of input i.
func lost(i int, err error) error {
	if errors.Is(err, layers.ErrNotFound) || cerrdefs.IsNotFound(err) {
		return &solver.LostError{Input: i, Err: err}
	}
	return err
}
