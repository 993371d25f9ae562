package layers

import (
	"context"
	"fmt"
	"slices"
)

// Hold keeps the layers of r for owner, across restarts, replacing what owner held before. When it returns, hold and layers are
// safe from a power cut. r stays the caller's.
func (s *Store) Hold(ctx context.Context, owner string, r *Ref) error {
	done, err := s.begin()
	if err != nil {
		return fmt.Errorf("hold layers for %s: %w", owner, err)
	}
	defer done()
	hold, err := s.borrow(r)
	if err != nil {
		return fmt.Errorf("hold layers for %s: %w", owner, err)
	}
	defer func() { _ = hold.Release() }() // released once, here
	if err := s.bringLent(ctx, hold); err != nil {
		return fmt.Errorf("hold layers for %s: %w", owner, err)
	}
	if err := s.syncLayers(ctx, hold.layers); err != nil {
		return fmt.Errorf("hold layers for %s: %w", owner, err)
	}
	s.mu.Lock()
	old := s.holds[owner]
	held := kept(hold.layers)
	for _, l := range held {
		l.holds++
	}
	s.holds[owner] = held
	s.letGo(old)
	s.journal.put(bucketHolds, owner, mustJSON(idsOf(held)), true)
	s.mu.Unlock()
	if err := s.journal.flush(ctx); err != nil {
		return fmt.Errorf("hold layers for %s: %w", owner, err)
	}
	return nil
}

// Drop ends what owner holds. Dropping nothing is no error.
func (s *Store) Drop(ctx context.Context, owner string) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return fmt.Errorf("drop layers of %s: %w", owner, ErrClosed)
	}
	old, ok := s.holds[owner]
	if ok {
		delete(s.holds, owner)
		s.letGo(old)
		s.journal.put(bucketHolds, owner, nil, true)
	}
	s.mu.Unlock()
	if !ok {
		return nil
	}
	if err := s.journal.flush(ctx); err != nil {
		return fmt.Errorf("drop layers of %s: %w", owner, err)
	}
	return nil
}

// Held takes hold of what owner holds; [ErrNotFound] if nothing, or if a layer is gone from disk all the same.
func (s *Store) Held(ctx context.Context, owner string) (*Ref, error) {
	s.mu.Lock()
	held, ok := s.holds[owner]
	ids := idsOf(held)
	s.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("layers of %s: %w", owner, ErrNotFound)
	}
	r, err := s.Pin(ctx, ids...)
	if err != nil {
		return nil, fmt.Errorf("layers of %s: %w", owner, err)
	}
	return r, nil
}

// letGo is called under mu.
func (s *Store) letGo(held []*layer) {
	for _, l := range held {
		l.holds--
	}
}

// loadHold restores a hold from the index. One that has lost a layer is of no use to its owner and is not restored.
func (s *Store) loadHold(owner string, ids []ID) {
	held := make([]*layer, len(ids))
	for i, id := range ids {
		held[i] = s.layers[id]
	}
	if slices.Contains(held, nil) {
		s.log.Warn("layers of an owner are gone from disk", "owner", owner)
		s.journal.put(bucketHolds, owner, nil, true)
		return
	}
	for _, l := range held {
		l.holds++
	}
	s.holds[owner] = held
}
