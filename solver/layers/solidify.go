package layers

import (
	"context"
	"errors"
	"fmt"
	"os"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/flight"
	"github.com/slipwaybuild/slipway/solver/layers/blob"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// Solidify packs every directory or lent layer of r that was not packed yet, each once however many ask, and returns the diffIDs of
// the stack. Remote layers are not fetched. A packed layer keeps its id; its directory goes when nobody uses it any more.
func (s *Store) Solidify(ctx context.Context, r *Ref) ([]digest.Digest, error) {
	done, err := s.begin()
	if err != nil {
		return nil, fmt.Errorf("pack layers: %w", err)
	}
	defer done()
	hold, err := s.borrow(r)
	if err != nil {
		return nil, fmt.Errorf("pack layers: %w", err)
	}
	defer func() { _ = hold.Release() }() // released once, here
	ids := make([]digest.Digest, len(hold.layers))
	for i, l := range hold.layers {
		if ids[i], err = s.packed(ctx, l); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// packed returns the diffID of a layer that is held, packing it if need be.
func (s *Store) packed(ctx context.Context, l *layer) (digest.Digest, error) {
	for {
		if id := s.diffID(l); id != "" {
			return id, nil
		}
		err := once(ctx, s.packs, l.ID, nil, func(c *flight.Call) error { return s.solidify(c.Context(), l.ID) })
		if err != nil {
			return "", fmt.Errorf("pack layer %s: %w", l.ID, err)
		}
	}
}

// diffID is the digest of a layer whose bytes can be had under it; "" for a directory or lent tree that must be packed.
func (s *Store) diffID(l *layer) digest.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	if (l.Kind == Directory || l.Kind == Lent) && l.source() == nil {
		return ""
	}
	return l.DiffID
}

// solidify packs one directory or lent layer. It runs once for all who wait, so it takes a hold of its own.
func (s *Store) solidify(ctx context.Context, id ID) error {
	r, err := s.pin([]ID{id})
	if err != nil {
		return err
	}
	defer func() { _ = r.Release() }() // released once, here
	dir := r.layers[0]
	if s.diffID(dir) != "" {
		return nil
	}
	tree, err := s.LayerTree(ctx, r, 0)
	if err != nil {
		return err
	}
	res := s.newReservation()
	defer res.end()
	b, err := s.newBlob(ctx, res, func(f *os.File, res *reservation) (blob.Summary, error) {
		return blob.Pack(ctx, &reservingSource{fstree.NewSource(tree), res}, f)
	})
	if err != nil {
		return s.packError(dir, err)
	}
	defer b.discard()
	s.mu.Lock()
	defer s.mu.Unlock()
	if dir.gone {
		return ErrNotFound
	}
	known := s.layers[ID(b.sum.DiffID)]
	l := known
	if known == nil || !known.HasBlob {
		// One that is known by name only, being remote, is its own layer still.
		if l, err = s.publish(b, ImportOptions{Labels: dir.Labels, Parents: dir.Parents}); err != nil {
			return err
		}
		if known == nil {
			// What was lent is gone soon: results that it is part of name the blob, which is there for itself.
			l.Derived, l.Created = dir.Kind != Lent, dir.Created // images tell when it was made, not when it was packed
		}
		s.save(l, true)
	}
	dir.setPacked(l)
	if dir.Kind == Lent {
		dir.Empty, dir.Odd = l.Empty, l.Odd
	}
	s.save(dir, true)
	return nil
}

// packError says of a directory that vanished that it is not found.
func (s *Store) packError(l *layer, err error) error {
	if l.Kind == Lent {
		return err
	}
	if _, serr := os.Lstat(s.at.dir(l.ID)); errors.Is(serr, os.ErrNotExist) && !s.isEmpty(l) {
		s.loseBytes(l)
		return errors.Join(ErrNotFound, err)
	}
	return err
}

func (s *Store) isEmpty(l *layer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return l.Empty
}
