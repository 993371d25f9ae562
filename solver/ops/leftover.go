package ops

import (
	"slices"
	"sync"

	"github.com/slipwaybuild/slipway/solver/layers"
)

// StepError is the failure of a step that left something to look into: what it saw, and what it had written by then.
type StepError struct {
	Err  error
	left *leftover
}

func (e *StepError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *StepError) Unwrap() error { return e.Err }

// Left returns holds, which the caller owns, on the stacks that a failed step saw and left. For an exec both lists go by mount;
// for a file op inputs goes by input and left by action; for a [ReadError] there is one input. Nil stands for nothing. Both lists are empty when the build that ran
// the step has ended: what is left is kept for it.
func (e *StepError) Left() (inputs, left []*layers.Ref) { return e.left.held() }

// leftover is what one failed run left. Its op owns it.
type leftover struct {
	mu           sync.Mutex
	inputs, left []*layers.Ref
}

func (l *leftover) held() (inputs, left []*layers.Ref) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return cloned(l.inputs), cloned(l.left)
}

func cloned(refs []*layers.Ref) []*layers.Ref {
	out := slices.Clone(refs)
	for i, r := range out {
		if r != nil {
			out[i] = r.Clone()
		}
	}
	return out
}

// take empties the leftover and returns its holds.
func (l *leftover) take() []*layers.Ref {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := slices.Concat(l.inputs, l.left)
	l.inputs, l.left = nil, nil
	return all
}

// leftovers are those of one op, which may run, and fail, more than once. The zero value is ready.
type leftovers struct {
	mu   sync.Mutex
	list []*leftover
}

// keep takes over the holds and marks the error.
func (l *leftovers) keep(err error, inputs, left []*layers.Ref) error {
	kept := &leftover{inputs: inputs, left: left}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, kept)
	return &StepError{Err: err, left: kept}
}

// close gives back whatever is kept.
func (l *leftovers) close(f *Factory) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, kept := range l.list {
		f.release(kept.take()...)
	}
	l.list = nil
}
