package layers

import (
	"fmt"
	"slices"

	digest "github.com/opencontainers/go-digest"
)

// place is where one blob is.
type place struct {
	ref  string
	blob digest.Digest
}

func placeOf(b RemoteBlob) place { return place{b.Ref, b.Descriptor.Digest} }

// maxLostPlaces bounds what is remembered of blobs that were not where they should have been. To forget one costs one more attempt.
const maxLostPlaces = 10_000

// Lost returns an error, which is [ErrNotFound], once a layer of the stack is known to be gone though it is held: its bytes vanished
// from disk, or from everywhere they could be fetched from.
func (r *Ref) Lost() error {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	for _, l := range r.layers {
		if l.gone {
			return fmt.Errorf("layer %s: %w", l.ID, ErrNotFound)
		}
	}
	return nil
}

// Lose takes note that a remote blob is not where it should be. A layer that can be had from nowhere else is gone, and so is, to a
// cache, what is made of it.
func (s *Store) Lose(b RemoteBlob) {
	s.mu.Lock()
	l := s.layers[ID(b.DiffID)]
	s.mu.Unlock()
	if l != nil {
		s.losePlaces(l, []RemoteBlob{b})
	}
}

// KnownLost tells whether a blob was found missing where b says it is, and nobody has seen it there since.
func (s *Store) KnownLost(b RemoteBlob) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, lost := s.lostAt[placeOf(b)]
	return lost
}

// losePlaces takes away from l the places it cannot be had from.
func (s *Store) losePlaces(l *layer, missing []RemoteBlob) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || l.gone {
		return
	}
	if s.lostAt == nil || len(s.lostAt) >= maxLostPlaces {
		s.lostAt = map[place]struct{}{}
	}
	for _, b := range missing {
		s.lostAt[placeOf(b)] = struct{}{}
	}
	l.Remotes = slices.DeleteFunc(slices.Clone(l.Remotes), func(b RemoteBlob) bool {
		_, lost := s.lostAt[placeOf(b)]
		return lost
	})
	if len(l.Remotes) == 0 && !l.local() {
		s.log.Warn("layer is gone from where it could be fetched", "layer", l.ID)
		s.forget(l)
		return
	}
	s.save(l, true)
}
