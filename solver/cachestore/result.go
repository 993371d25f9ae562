package cachestore

import (
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/layers"
)

// Result is a hold on a stack of layers as the solver passes it around.
type Result struct{ ref *layers.Ref }

var _ solver.Result = (*Result)(nil)

// NewResult makes a result of ref, which it then owns. A nil ref gives a nil result.
func NewResult(ref *layers.Ref) solver.Result {
	if ref == nil {
		return nil
	}
	return &Result{ref: ref}
}

// RefOf returns the stack a result holds, still the result's own; nil for a nil result, which is the empty stack, and for a
// result that is not of this package.
func RefOf(r solver.Result) *layers.Ref {
	if res, ok := r.(*Result); ok && res != nil {
		return res.ref
	}
	return nil
}

// Lost implements [solver.Perishable].
func (r *Result) Lost() error { return r.ref.Lost() }

// Clone implements [solver.Result].
func (r *Result) Clone() solver.Result { return &Result{ref: r.ref.Clone()} }

// Release implements [solver.Result].
func (r *Result) Release() error { return r.ref.Release() }
