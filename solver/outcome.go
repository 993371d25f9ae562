package solver

import (
	"errors"
	"fmt"
	"sync/atomic"
)

// outcome is what a vertex gave: results under the identity of what they were really made from. Builds and flights share it
// by counting holds; the results themselves are cloned only for those outside.
type outcome struct {
	identity Identity
	results  []Result
	// born is when it was known to be there, by the solver's count of losses.
	born int64
	// ran tells an op that ran from a record that was found.
	ran bool
	// promise is the one under which identity was remembered when ran.
	promise Promise

	holds atomic.Int64
}

// newOutcome takes over results, with one hold on the outcome for the caller.
func newOutcome(id Identity, results []Result, born int64) *outcome {
	o := &outcome{identity: id, results: results, born: born}
	o.holds.Store(1)
	return o
}

// retain adds a hold. The caller has one. A nil outcome needs none.
func (o *outcome) retain() {
	if o != nil {
		o.holds.Add(1)
	}
}

// release gives one hold back, and with the last one the results.
func (o *outcome) release() error {
	if o == nil || o.holds.Add(-1) > 0 {
		return nil
	}
	return releaseAll(o.results)
}

// perished says why one of the results is known to be gone; nil if none is.
func (o *outcome) perished() error {
	for _, r := range o.results {
		if p, ok := r.(Perishable); ok {
			if err := p.Lost(); err != nil {
				return err
			}
		}
	}
	return nil
}

func releaseAll(results []Result) error {
	var errs []error
	for _, r := range results {
		if r == nil {
			continue
		}
		if err := r.Release(); err != nil {
			errs = append(errs, fmt.Errorf("release result: %w", err))
		}
	}
	return errors.Join(errs...)
}

// output returns a clone of one output, which the caller owns; nil for an empty one.
func (o *outcome) output(e Edge) (Result, error) {
	if e.Output < 0 || e.Output >= len(o.results) {
		return nil, noOutput(e, len(o.results))
	}
	if r := o.results[e.Output]; r != nil {
		return r.Clone(), nil
	}
	return nil, nil
}
