package solver

import (
	"context"
	"fmt"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/flight"
)

// contentKey names what a selector sees of one output.
type contentKey struct {
	identity Identity
	output   int
	selector string
	private  *Build // nil if the digest is taken for all who ask
}

func (k contentKey) String() string { return fmt.Sprintf("%s/%d %s", k.identity, k.output, k.selector) }

type contentAnswer = digest.Digest

// nothing is the digest of an empty result, which no selector sees.
var nothing = digest.FromString("")

// readNamed reads input i of n by name: nothing is made that is not needed to name it.
func (b *Build) readNamed(ctx context.Context, n *node, i int) (reading, error) {
	in := n.input(i)
	id, err := b.identity(ctx, in)
	if err != nil {
		return reading{}, err
	}
	sel := n.v.Op.Selector(i)
	if sel == nil {
		return reading{identity: id}, nil
	}
	key := contentKey{identity: id, output: n.v.Inputs[i].Output, selector: sel.Key()}
	d, ok, reason := b.knownContent(ctx, key)
	n.report.trace("content", key.String(), ok, reason, nil)
	if ok {
		return reading{identity: id, content: d}, nil
	}
	for attempt := 0; ; attempt++ {
		out, err := b.result(ctx, in)
		if err != nil {
			return reading{}, err
		}
		r, err := b.readMade(ctx, n, i, out)
		if attempt == maxRewinds || lostInput(n.v, err) == nil {
			return r, err
		}
		b.drop(in, out)
	}
}

// readMade reads input i of n, which out has.
func (b *Build) readMade(ctx context.Context, n *node, i int, out *outcome) (reading, error) {
	sel := n.v.Op.Selector(i)
	if sel == nil {
		return reading{identity: out.identity}, nil
	}
	e := n.v.Inputs[i]
	if e.Output < 0 || e.Output >= len(out.results) {
		return reading{}, noOutput(e, len(out.results))
	}
	if out.results[e.Output] == nil {
		return reading{identity: out.identity, content: nothing}, nil
	}
	d, err := b.content(ctx, n, i, sel, out)
	return reading{identity: out.identity, content: d}, err
}

// knownContent asks the store.
func (s *Solver) knownContent(ctx context.Context, k contentKey) (d digest.Digest, ok bool, reason string) {
	d, ok, err := s.store.Content(ctx, k.identity, k.output, k.selector)
	switch {
	case err != nil:
		return "", false, storeFault(err)
	case !ok:
		return "", false, notFound
	}
	return d, true, ""
}

// content digests what sel sees of input i, once for all builds that ask now. A [LostError] names input i.
func (b *Build) content(ctx context.Context, n *node, i int, sel Selector, out *outcome) (digest.Digest, error) {
	key := contentKey{identity: out.identity, output: n.v.Inputs[i].Output, selector: sel.Key()}
	d, err := share(b, func(private *Build) (contentAnswer, error) {
		key.private = private
		return b.s.contents.Do(ctx, key, n, func() flight.Work[contentAnswer] {
			return b.s.digestion(n, sel, key, out)
		})
	})
	if lost := foundLost(err); lost != nil {
		// The flight's leader may have the same as another of its inputs.
		err = &LostError{Input: i, Err: lost.Err}
	}
	return d, inVertex(n.v, err)
}

// digestion is the work of one flight for a content digest. It holds what it uses by itself.
func (s *Solver) digestion(n *node, sel Selector, key contentKey, out *outcome) flight.Work[contentAnswer] {
	out.retain()
	n.use()
	h := newHub(s.tempDir)
	return flight.Work[contentAnswer]{
		Join: func(p any) func() { return h.quietJoin(p.(*node).report) },
		Done: s.closeHub(h),
		Run: func(c *flight.Call) (contentAnswer, error) {
			defer n.unuse()
			defer s.release(out)
			if d, ok, _ := s.knownContent(c.Context(), key); ok {
				return d, nil
			}
			call := &sharedCall{flight: c, hub: h}
			d, err := sel.Digest(c.Context(), call, out.results[key.output])
			if lost := foundLost(err); lost != nil {
				s.forget(context.WithoutCancel(c.Context()), out, err)
				return "", lost
			}
			if err != nil {
				return "", call.blame(err)
			}
			if err := s.store.PutContent(c.Context(), key.identity, key.output, key.selector, d); err != nil {
				s.log.Warn("store content digest", "identity", key.identity, "error", err)
			}
			return d, nil
		},
	}
}

// closeHub returns what a flight does when all is over.
func (s *Solver) closeHub(h *hub) func() {
	return func() {
		if err := h.close(); err != nil {
			s.log.Warn("forget progress", "error", err)
		}
	}
}
