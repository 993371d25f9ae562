package solver

import (
	"sync"

	"github.com/slipwaybuild/slipway/solver/flight"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// ownCall is the [Call] of work that a build does for itself alone: pinning.
type ownCall struct{ n *node }

func (c ownCall) Progress() progress.Writer { return progress.NewWriter(c.n.report, c.n.v.ID) }

func (c ownCall) Lenders() []any {
	if c.n.b.lender == nil {
		return nil
	}
	return []any{c.n.b.lender}
}

// sharedCall is the [Call] of a flight, whose participants are nodes.
type sharedCall struct {
	flight *flight.Call
	hub    *hub

	mu   sync.Mutex   // guards what follows
	lent map[any]bool // every lender the work ever heard of
}

func (c *sharedCall) Progress() progress.Writer { return progress.NewWriter(c.hub, "") }

func (c *sharedCall) Lenders() []any {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lent == nil {
		c.lent = map[any]bool{}
	}
	var now []any
	seen := map[*Build]bool{}
	for _, p := range c.flight.Participants() {
		b := p.(*node).b
		if seen[b] || b.lender == nil {
			continue
		}
		seen[b] = true
		c.lent[b.lender] = true
		now = append(now, b.lender)
	}
	return now
}

// blame notes beside an error that is a lender's fault who had lent to the work.
func (c *sharedCall) blame(err error) error {
	lender, ok := blamed(err)
	if !ok {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	suspects := c.lent
	if lender != nil {
		suspects = map[any]bool{lender: true}
	}
	return &suspectError{suspects: suspects, known: lender != nil, err: err}
}

// suspectError is an error that is the fault of one of the suspects.
type suspectError struct {
	suspects map[any]bool
	known    bool // there is but one
	err      error
}

func (e *suspectError) Error() string { return e.err.Error() }
func (e *suspectError) Unwrap() error { return e.err }

// acquits tells whether the work may succeed if b alone lends to it.
func (e *suspectError) acquits(b *Build) bool {
	return !e.suspects[b.lender] || len(e.suspects) > 1
}
