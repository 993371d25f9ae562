package ops

import (
	"context"
	"errors"
	"slices"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
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
	if !lazy(ref, layers.Remote) && !lazy(ref, layers.Lent) {
		return nil
	}
	var fetcher layers.Fetcher
	if f.fetcher != nil {
		fetcher = f.fetcher(group)
	}
	return f.store.Fetch(ctx, ref, fetcher, p)
}

// fetchToRead is fetch for who needs the tree only: what is lent can be read as it is.
func (f *Factory) fetchToRead(ctx context.Context, ref *layers.Ref, group func() *session.Group, p progress.Writer) error {
	if !lazy(ref, layers.Remote) {
		return nil
	}
	return f.fetch(ctx, ref, group, p)
}

func lazy(ref *layers.Ref, kind layers.Kind) bool {
	return ref != nil && slices.ContainsFunc(ref.Layers(), func(l layers.Info) bool { return l.Kind == kind })
}

// fetchInput is fetch for input i of an op: layers that are gone for good are a lost input, which the solver makes again.
func (f *Factory) fetchInput(ctx context.Context, call solver.Call, i int, r solver.Result) error {
	return lost(i, f.fetch(ctx, RefOf(r), sessions(call), call.Progress()))
}

// fetchInputToRead is to fetchInput what fetchToRead is to fetch.
func (f *Factory) fetchInputToRead(ctx context.Context, call solver.Call, i int, r solver.Result) error {
	return lost(i, f.fetchToRead(ctx, RefOf(r), sessions(call), call.Progress()))
}

// keepLent is for input i of an op whose result it is part of: the result is to last, and what is lent does not.
func (f *Factory) keepLent(ctx context.Context, call solver.Call, i int, r solver.Result) error {
	if !lazy(RefOf(r), layers.Lent) {
		return nil
	}
	return f.fetchInput(ctx, call, i, r)
}

// lostLent says of files that changed in what was lent that the input is lost: another client's may be in order. Of several inputs
// that are lent any will do, since all are looked at again in turn.
func lostLent(inputs []solver.Result, err error) error {
	if !errors.Is(err, fstree.ErrChanged) {
		return err
	}
	for i, in := range inputs {
		if lazy(RefOf(in), layers.Lent) {
			return &solver.LostError{Input: i, Err: err}
		}
	}
	return err
}

// lost turns the absence of layers into the loss of input i.
func lost(i int, err error) error {
	if errors.Is(err, layers.ErrNotFound) || errors.Is(err, fstree.ErrChanged) || cerrdefs.IsNotFound(err) {
		return &solver.LostError{Input: i, Err: err}
	}
	return err
}
