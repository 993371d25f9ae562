package images

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/layers"
	bolt "go.etcd.io/bbolt"
)

// The store's own buckets beside containerd's.
var (
	// bucketHeld lists the digests that layers are, or are about to be, held for. A digest is entered before the layers are
	// taken and leaves after they were given back, so whatever a crash interrupts is found at the next start.
	bucketHeld = []byte("slipway.held")
	// bucketLayers maps the diffID of an image's layer to its id in the layer store. The two differ for directory layers.
	bucketLayers = []byte("slipway.layers")
	// bucketStore has the id of the store.
	bucketStore = []byte("slipway.store")
)

// storeID returns what tells this store from others that share a backing, the same after every start.
func storeID(books *bolt.DB) (id string, err error) {
	key := []byte("id")
	err = books.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucketStore)
		if err != nil {
			return err
		}
		if id = string(b.Get(key)); id != "" {
			return nil
		}
		id = rand.Text()
		return b.Put(key, []byte(id))
	})
	return id, err
}

// owner is the name under which the layer store holds an image's layers.
func owner(d digest.Digest) string { return "image:" + d.String() }

// hold takes hold of refs for the image with target digest d, in place of what was held for it. Where the content is shared it has
// the layers as well: they are known, but may go.
func (s *Store) hold(ctx context.Context, d digest.Digest, refs []*layers.Ref) error {
	if s.layers == nil || len(refs) == 0 {
		return nil
	}
	stack := s.layers.Stack(refs...)
	shared := s.backing.Shared()
	err := s.books.Update(func(tx *bolt.Tx) error {
		held, err := tx.CreateBucketIfNotExists(bucketHeld)
		if err != nil {
			return err
		}
		ids, err := tx.CreateBucketIfNotExists(bucketLayers)
		if err != nil {
			return err
		}
		for _, l := range stack.Layers() {
			if l.DiffID == "" {
				continue
			}
			if err := ids.Put([]byte(l.DiffID), []byte(l.ID)); err != nil {
				return err
			}
		}
		if shared {
			return nil
		}
		return held.Put([]byte(d), []byte{})
	})
	if err == nil && !shared {
		err = s.layers.Hold(ctx, owner(d), stack)
	}
	return errors.Join(err, stack.Release())
}

// holds tells whether just the layers of refs are held for d.
func (s *Store) holds(ctx context.Context, d digest.Digest, refs []*layers.Ref) (bool, error) {
	held, err := s.layers.Held(ctx, owner(d))
	if errors.Is(err, layers.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	stack := s.layers.Stack(refs...)
	same := slices.Equal(held.IDs(), stack.IDs())
	return same, errors.Join(held.Release(), stack.Release())
}

// unholdUnnamed gives the layers of d back if no name refers to it any more.
func (s *Store) unholdUnnamed(ctx context.Context, d digest.Digest) error {
	if s.layers == nil || s.backing.Shared() {
		return nil
	}
	named, err := s.digests(ctx)
	if err != nil || named[d] {
		return err
	}
	return s.unhold(ctx, d)
}

func (s *Store) unhold(ctx context.Context, d digest.Digest) error {
	if err := s.layers.Drop(ctx, owner(d)); err != nil && !errors.Is(err, layers.ErrNotFound) {
		return err
	}
	return s.books.Update(func(tx *bolt.Tx) error {
		if b := tx.Bucket(bucketHeld); b != nil {
			return b.Delete([]byte(d))
		}
		return nil
	})
}

func (s *Store) heldDigests() ([]digest.Digest, error) {
	var out []digest.Digest
	err := s.books.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketHeld)
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, _ []byte) error {
			out = append(out, digest.Digest(k))
			return nil
		})
	})
	return out, err
}

// layerID returns the id that an image's layer had in the layer store, or its diffID where nothing else is known.
func (s *Store) layerID(d digest.Digest) (id layers.ID, err error) {
	id = layers.ID(d)
	err = s.books.View(func(tx *bolt.Tx) error {
		if b := tx.Bucket(bucketLayers); b != nil {
			if v := b.Get([]byte(d)); v != nil {
				id = layers.ID(v)
			}
		}
		return nil
	})
	return id, err
}

// pin takes hold of the layer with a diffID: layers.ErrNotFound if the layer store has none.
func (s *Store) pin(ctx context.Context, d digest.Digest) (*layers.Ref, error) {
	if s.layers == nil {
		return nil, layers.ErrNotFound
	}
	r, err := s.layers.Pin(ctx, layers.ID(d))
	if !errors.Is(err, layers.ErrNotFound) {
		return r, err
	}
	id, err := s.layerID(d)
	if err != nil {
		return nil, err
	}
	if id == layers.ID(d) {
		return nil, layers.ErrNotFound
	}
	return s.layers.Pin(ctx, id)
}

// forgetLostLayers removes the entries of layers that the layer store has no more.
func (s *Store) forgetLostLayers(ctx context.Context) error {
	if s.layers == nil {
		return nil
	}
	all := map[string]layers.ID{}
	err := s.books.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketLayers)
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, v []byte) error {
			all[string(k)] = layers.ID(v)
			return nil
		})
	})
	if err != nil {
		return err
	}
	var lost []string
	for d, id := range all {
		r, err := s.layers.Pin(ctx, id)
		switch {
		case errors.Is(err, layers.ErrNotFound):
			lost = append(lost, d)
		case err != nil:
			return err
		default:
			if err := r.Release(); err != nil {
				return err
			}
		}
	}
	return s.books.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketLayers)
		for _, d := range lost {
			if err := b.Delete([]byte(d)); err != nil {
				return err
			}
		}
		return nil
	})
}
