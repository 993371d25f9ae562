package layers

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// Pin takes hold of layers by id, all or none; the error is [ErrNotFound] if one is gone. Layers whose bytes have vanished from
// disk are gone.
func (s *Store) Pin(ctx context.Context, ids ...ID) (*Ref, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	r, err := s.pin(ids)
	if err != nil {
		return nil, fmt.Errorf("take hold of layers: %w", err)
	}
	if lost := s.lost(r.layers); lost != nil {
		return nil, errors.Join(fmt.Errorf("take hold of layer %s: %w", lost.ID, ErrNotFound), r.Release())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for _, l := range r.layers {
		s.use(l, now)
	}
	return r, nil
}

func (s *Store) pin(ids []ID) (*Ref, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	found := make([]*layer, len(ids))
	for i, id := range ids {
		l := s.layers[id]
		if l == nil {
			return nil, fmt.Errorf("%s: %w", id, ErrNotFound)
		}
		found[i] = l
	}
	return s.hold(found, 2), nil
}

// lost finds a layer, of some that are held, whose bytes somebody took away behind the store's back, and drops it from the
// index. To ask the disk on every look-up costs a microsecond a layer and spares a build that fails halfway.
func (s *Store) lost(held []*layer) *layer {
	for _, l := range held {
		s.mu.Lock()
		var path string
		if blob := l.source(); blob != nil {
			path = s.at.blob(blob.DiffID)
		} else if l.HasDir {
			path = s.at.dir(l.ID)
		}
		s.mu.Unlock()
		if path == "" {
			continue // remote or empty
		}
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			continue
		}
		s.log.Warn("layer is gone from disk", "layer", l.ID, "path", path)
		if s.loseBytes(l) {
			return l
		}
	}
	return nil
}

// loseBytes drops a layer whose bytes vanished, or makes it a remote one again. It returns whether the layer is gone.
func (s *Store) loseBytes(l *layer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.Kind == Blob && len(l.Remotes) > 0 && !l.gone {
		s.dropBlob(l)
		l.Kind, l.Boot = Remote, ""
		s.save(l, true)
		return false
	}
	if blob := l.source(); blob != nil {
		s.forget(blob)
	}
	s.forget(l)
	return true
}
