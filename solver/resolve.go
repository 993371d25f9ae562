package solver

import (
	"context"
	"errors"
)

// maxRewinds is how often a step tries again with the same input made anew.
const maxRewinds = 3

// askAlias answers which identity the cache has for the promise of n.
func (b *Build) askAlias(ctx context.Context, n *node) (aliasAnswer, error) {
	p, err := b.promises.of(ctx, n)
	if err != nil {
		return aliasAnswer{}, err
	}
	a := aliasAnswer{reason: cacheOff}
	if !p.fresh {
		if a, err = b.alias(ctx, p.promise); err != nil {
			return aliasAnswer{}, err
		}
	}
	n.report.trace("promise", p.promise.String(), a.known, a.reason, p.parts)
	return a, nil
}

// askName answers identity(v) = H(key of the op, what it reads), by names as far as they go.
func (b *Build) askName(ctx context.Context, n *node) (named, error) {
	return b.form(ctx, n, func(ctx context.Context, i int) (reading, error) { return b.readNamed(ctx, n, i) })
}

// identity returns how consumers name n: by what it was made of if that is known, else by what its promise is known to be, and
// only then from its inputs.
func (b *Build) identity(ctx context.Context, n *node) (Identity, error) {
	if a, ok := b.results.known(n); ok && a.err == nil {
		return a.val.identity, nil
	}
	a, err := b.aliases.of(ctx, n)
	if err != nil || a.known {
		return a.identity, err
	}
	f, err := b.names.of(ctx, n)
	return f.identity, err
}

// had is an outcome and how a step came by it.
type had struct {
	*outcome
	hit    bool // it was there; otherwise the step worked for it, or waited while others did
	joined bool // it, or the error beside it, is what came of a run that was led by another vertex
}

// result returns what n gives, made again if what was there is known to be lost.
func (b *Build) result(ctx context.Context, n *node) (*outcome, error) {
	for {
		out, err := b.results.of(ctx, n)
		if err != nil {
			return nil, err
		}
		if why := out.perished(); why != nil {
			b.s.forget(ctx, out, why)
		}
		if !b.s.losses.covers(out) {
			return out, nil
		}
		b.drop(n, out)
	}
}

// askResult answers result(v) and tells the viewers.
func (b *Build) askResult(ctx context.Context, n *node) (*outcome, error) {
	defer n.report.ask()()
	got, err := b.resolve(ctx, n)
	var failed *VertexError
	switch {
	case err == nil && got.hit:
		n.report.cached()
		b.showPruned(n)
	case err == nil:
		n.report.completed(nil)
	case ctx.Err() != nil:
		n.report.canceled()
	case errors.As(err, &failed) && failed.Vertex == n.v:
		n.report.failed(failed.Err)
	}
	return got.outcome, err
}

// resolve reads from the cheapest to the dearest: the promise touches nothing, the identity reads selective inputs, and only then
// the inputs are made and the op runs.
func (b *Build) resolve(ctx context.Context, n *node) (had, error) {
	p, err := b.promises.of(ctx, n)
	if err != nil {
		return had{}, err
	}
	a, err := b.aliases.of(ctx, n)
	if err != nil {
		return had{}, err
	}
	if a.known {
		if got, err := b.obtainAlias(ctx, n, p, a); got.outcome != nil || err != nil {
			return got, err
		}
	}
	got, err := b.resolveByName(ctx, n, p, a)
	if err != nil {
		return had{}, err
	}
	if !(a.known && a.identity == got.identity) && !(got.ran && got.promise == p.promise) {
		b.s.remember(ctx, p.promise, got.identity)
	}
	return got, nil
}

// resolveByName goes on where the promise a led to nothing.
func (b *Build) resolveByName(ctx context.Context, n *node, p promised, a aliasAnswer) (had, error) {
	name, err := b.names.of(ctx, n)
	if err != nil {
		return had{}, err
	}
	if !a.known || a.identity != name.identity {
		if got, err := b.obtain(ctx, n, name.identity, name.parts); got.outcome != nil || err != nil {
			return got, err
		}
	}
	return b.make(ctx, n, p, name)
}

// obtainAlias returns what the promise a leads to. Where our own cache has forgotten that, another's promise may lead elsewhere.
func (b *Build) obtainAlias(ctx context.Context, n *node, p promised, a aliasAnswer) (had, error) {
	got, err := b.obtain(ctx, n, a.identity, nil)
	if got.outcome == nil && err == nil && !a.imported {
		other, err := b.importedAlias(ctx, p.promise, a)
		if err != nil || other.identity == a.identity {
			return had{}, err
		}
		a = other
		got, err = b.obtain(ctx, n, a.identity, nil)
		if err != nil {
			return had{}, err
		}
	}
	if got.outcome != nil && a.imported {
		b.s.remember(ctx, p.promise, a.identity)
	}
	return got, err
}

// obtain returns what is to be had under id without making inputs: what this build has, a run that is on, or a record. It has no
// outcome when there is none of these.
func (b *Build) obtain(ctx context.Context, n *node, id Identity, parts Parts) (had, error) {
	if out := b.owned(id); out != nil {
		n.report.trace("identity", id.String(), true, "", parts)
		return had{outcome: out, hit: true}, nil
	}
	out, joined, err := b.s.runs.Join(ctx, runKey{identity: id}, n)
	if err == nil && joined {
		n.report.trace("identity", id.String(), !out.ran, beingMade, parts)
		return had{outcome: b.own(out), hit: !out.ran, joined: true}, nil
	}
	if err != nil && (!joined || !b.mayTryItself(n.v, err)) {
		return had{}, inVertex(n.v, err)
	}
	found, err := b.lookup(ctx, id)
	if err != nil {
		return had{}, inVertex(n.v, err)
	}
	if parts == nil && found.reason == notFound {
		found.reason = recordGone // an alias led here
	}
	n.report.trace("identity", id.String(), found.out != nil, found.reason, parts)
	if found.out == nil {
		return had{}, nil
	}
	return had{outcome: b.own(found.out), hit: true}, nil
}

// mayTryItself tells whether work that failed for another build may succeed for this one.
func (b *Build) mayTryItself(v *Vertex, err error) bool {
	var suspect *suspectError
	return lostInput(v, err) != nil || errors.As(err, &suspect) && suspect.acquits(b)
}

// make makes the inputs and runs the op. When bytes of an input turn out to be lost, the input is made again from its producers.
func (b *Build) make(ctx context.Context, n *node, p promised, tried named) (had, error) {
	rewinds := make([]int, len(n.v.Inputs))
	for {
		inputs, err := b.makeInputs(ctx, n)
		if err != nil {
			return had{}, err
		}
		got, err := b.makeFrom(ctx, n, p, tried, inputs)
		lost := lostInput(n.v, err)
		if lost == nil {
			return got, err
		}
		// What another build's inputs were found to lack counts there: each failure counts with one of those who wait.
		if !got.joined {
			rewinds[lost.Input]++
		}
		if rewinds[lost.Input] > maxRewinds {
			return had{}, err
		}
		b.drop(n.input(lost.Input), inputs[lost.Input])
	}
}

func (b *Build) makeInputs(ctx context.Context, n *node) ([]*outcome, error) {
	inputs := make([]*outcome, len(n.v.Inputs))
	err := each(ctx, len(inputs), func(ctx context.Context, i int) (err error) {
		inputs[i], err = b.result(ctx, n.input(i))
		return err
	})
	return inputs, err
}

// makeFrom runs the op on inputs. The name under which the outcome is stored is formed anew from what the inputs are now: the one
// that was looked up may come from records that are gone, and an input that was made again need not be what it was.
func (b *Build) makeFrom(ctx context.Context, n *node, p promised, tried named, inputs []*outcome) (had, error) {
	f, err := b.form(ctx, n, func(ctx context.Context, i int) (reading, error) { return b.readMade(ctx, n, i, inputs[i]) })
	if err != nil {
		return had{}, err
	}
	if f.identity != tried.identity {
		if got, err := b.obtain(ctx, n, f.identity, f.parts); got.outcome != nil || err != nil {
			return got, err
		}
	}
	return b.run(ctx, n, p, f, inputs)
}
