package solver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/slipwaybuild/slipway/solver/flight"
)

// runKey names a run.
type runKey struct {
	identity Identity
	private  *Build // nil if it is for all who ask
}

// share asks for shared work and, if it failed by the fault of a lender that need not be b's, asks again: without the culprit if
// it is known, and in the end for b alone, which then has nobody else to blame.
func share[V any](b *Build, do func(private *Build) (V, error)) (V, error) {
	var private *Build
	for again := false; ; again = true {
		v, err := do(private)
		var suspect *suspectError
		if private != nil || !errors.As(err, &suspect) || !suspect.acquits(b) {
			return v, err
		}
		if again || !suspect.known {
			private = b
		}
	}
}

// run runs the op of n on inputs, whose identity with it f is, once for all builds that ask now.
func (b *Build) run(ctx context.Context, n *node, p promised, f named, inputs []*outcome) (had, error) {
	results, err := pick(n.v.Inputs, inputs)
	if err != nil {
		return had{}, err
	}
	led := false
	out, err := share(b, func(private *Build) (*outcome, error) {
		return b.s.runs.Do(ctx, runKey{f.identity, private}, n, func() flight.Work[*outcome] {
			led = true
			r := &run{s: b.s, n: n, promised: p, named: f, inputs: inputs, results: results, hub: newHub(b.s.tempDir)}
			return r.work()
		})
	})
	if err != nil {
		return had{joined: !led}, inVertex(n.v, err)
	}
	return had{outcome: b.own(out), hit: !out.ran, joined: !led}, nil
}

// pick returns the results that edges stand for; they stay the outcomes'.
func pick(edges []Edge, outs []*outcome) ([]Result, error) {
	results := make([]Result, len(edges))
	for i, e := range edges {
		have := outs[i].results
		if e.Output < 0 || e.Output >= len(have) {
			return nil, noOutput(e, len(have))
		}
		results[i] = have[e.Output]
	}
	return results, nil
}

// run is one run of an op. It was led by n's build, and holds by itself the op and the inputs, for it may outlive that build.
type run struct {
	s        *Solver
	n        *node
	promised promised
	named    named
	inputs   []*outcome
	results  []Result // of the inputs, in the op's order
	hub      *hub
}

// work takes hold of what the run uses. It is called while the build is open.
func (r *run) work() flight.Work[*outcome] {
	for _, in := range r.inputs {
		in.retain()
	}
	r.n.use()
	return flight.Work[*outcome]{
		Run:  r.do,
		Join: func(p any) func() { return r.hub.join(p.(*node).report) },
		Done: r.s.closeHub(r.hub),
	}
}

// do runs the op, unless another flight ended with the same between the last look-up and the start of this one. It waits for
// the op and the store and for no other flight; see the package comment.
func (r *run) do(c *flight.Call) (*outcome, error) {
	defer r.letGo()
	ctx := c.Context()
	if err := r.n.enter(ctx); err != nil {
		return nil, err
	}
	defer r.n.exit()
	if found := r.s.results(ctx, r.named.identity); found.out != nil {
		return found.out, nil
	}
	start := time.Now()
	call := &sharedCall{flight: c, hub: r.hub}
	results, err := r.n.v.Op.Run(ctx, call, r.results)
	if err != nil {
		return nil, r.failed(ctx, call, err, results)
	}
	out := newOutcome(r.named.identity, results, r.s.losses.now())
	out.ran, out.promise = true, r.promised.promise
	// The work is done, so it is kept even if the last who wanted it left just now.
	r.store(context.WithoutCancel(ctx), out, time.Since(start))
	return out, nil
}

// failed clears up after an op that failed and says what its waiters are told.
func (r *run) failed(ctx context.Context, call *sharedCall, err error, results []Result) error {
	if rerr := releaseAll(results); rerr != nil {
		r.s.log.Error("release results of a failed step", "step", r.n.v.Name, "error", rerr)
	}
	lost := foundLost(err)
	if lost == nil {
		return call.blame(err)
	}
	if lost.Input < 0 || lost.Input >= len(r.inputs) {
		return fmt.Errorf("a step with %d inputs: %w", len(r.inputs), lost.Err)
	}
	// Forgotten here and not by those who wait, so that none of them finds the record again.
	r.s.forget(context.WithoutCancel(ctx), r.inputs[lost.Input], err)
	return &LostError{Input: lost.Input, Err: lost.Err}
}

// store remembers what came out: first the record, then the names that lead to it.
func (r *run) store(ctx context.Context, out *outcome, took time.Duration) {
	rec := Record{
		Step: r.n.v.ID, Name: r.n.v.Name,
		Promise: r.promised.promise, PromiseKey: r.promised.parts, IdentityKey: r.named.parts,
		DurationMS: took.Milliseconds(),
	}
	if err := r.s.store.PutResults(ctx, out.identity, rec, out.results); err != nil {
		r.s.log.Warn("store result", "step", r.n.v.Name, "identity", out.identity, "error", err)
	} else {
		r.s.losses.replaced(out.identity)
	}
	if r.n.v.IgnoreCache {
		r.s.remember(ctx, renaming(r.named.plain), out.identity)
	}
	r.s.remember(ctx, r.promised.promise, out.identity)
}

func (r *run) letGo() {
	for _, in := range r.inputs {
		r.s.release(in)
	}
	r.n.unuse()
}
