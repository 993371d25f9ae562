package cachestore

import (
	"context"

	"github.com/slipwaybuild/slipway/solver/layers"
)

// Stack names the layers of a stack so that they can be found later, also by a daemon that was started since. It holds none of them:
// the collector may take any.
type Stack struct {
	Layers []storedLayer `json:"layers,omitempty"`
}

// NameStack names the layers of a stack, which stays the caller's.
func NameStack(ref *layers.Ref) Stack {
	var s Stack
	for _, l := range ref.Layers() {
		s.Layers = append(s.Layers, storedLayer{ID: lasting(l), Remote: l.Remote})
	}
	return s
}

// lasting is by what to name a layer: one that is lent is gone soon, what it was packed into is not.
func lasting(l layers.Info) layers.ID {
	if l.Kind == layers.Lent && l.DiffID != "" {
		return layers.ID(l.DiffID)
	}
	return l.ID
}

// Find takes hold of the layers of a stack, which the caller releases. Those that were evicted and once came from elsewhere are lazy
// again; [layers.ErrNotFound] if one can be had nowhere.
func (s *Store) Find(ctx context.Context, stack Stack) (*layers.Ref, error) {
	return s.hold(ctx, storedResult{Layers: stack.Layers})
}
