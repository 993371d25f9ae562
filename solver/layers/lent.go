package layers

import (
	"context"
	"fmt"

	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// Lend makes a layer of a tree that is not the store's, such as a directory of a client on this host: nothing is copied until somebody
// needs the layer's bytes ([Store.Fetch], [Store.Solidify]), and it is gone when its last hold is, also from the cache. The tree
// must not change, or fail rather than show that it did. end is called once, after the last hold was given back and nothing reads
// the tree any more; it may be nil.
func (s *Store) Lend(tree fstree.Tree, o ImportOptions, end func() error) (*Ref, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("lend layer: %w", ErrClosed)
	}
	now := s.now()
	l := &layer{
		record: record{ID: ID("lent:" + newName()), Kind: Lent, Labels: o.Labels, Parents: o.Parents, Created: now, LastUsed: now},
		lent:   tree, end: end,
	}
	s.layers[l.ID] = l
	return s.hold([]*layer{l}, 1), nil
}

// ended returns what is left to do of a lent layer that is gone, once. It is called under mu.
func (l *layer) ended() func() error {
	if l.Kind != Lent || !l.gone || l.end == nil {
		return nil
	}
	end := l.end
	l.end = nil
	return end
}

// bringLent packs the lent layers of a stack: from here on their bytes are the store's.
func (s *Store) bringLent(ctx context.Context, hold *Ref) error {
	for _, l := range hold.layers {
		if l.Kind != Lent { // which never changes
			continue
		}
		if _, err := s.packed(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

// kept are the layers to name where a hold is to last: a lent layer is gone soon, what it was packed into is not. It is called under mu.
func kept(held []*layer) []*layer {
	out := make([]*layer, len(held))
	for i, l := range held {
		if out[i] = l; l.Kind == Lent && l.packed != nil {
			out[i] = l.packed
		}
	}
	return out
}
