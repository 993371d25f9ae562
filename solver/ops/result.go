package ops

import (
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/cachestore"
	"github.com/slipwaybuild/slipway/solver/layers"
)

// Result is what ops give: a hold on a stack of layers.
type Result = cachestore.Result

// NewResult makes a result of ref, which it then owns. A nil ref gives a nil result.
func NewResult(ref *layers.Ref) solver.Result { return cachestore.NewResult(ref) }

// RefOf returns the stack a result holds, still the result's own; nil for a nil result, which is the empty stack.
func RefOf(r solver.Result) *layers.Ref { return cachestore.RefOf(r) }

// idsOf names the stack of a result, bottom first.
func idsOf(r solver.Result) []layers.ID {
	if ref := RefOf(r); ref != nil {
		return ref.IDs()
	}
	return nil
}

// held returns a hold of its own on the stack of r, the empty stack for nil.
func (f *Factory) held(r solver.Result) *layers.Ref {
	if ref := RefOf(r); ref != nil {
		return ref.Clone()
	}
	return f.store.Scratch()
}
