package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/layers"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// lockTimeout bounds the wait for the database file: only another process can hold it.
const lockTimeout = 2 * time.Second

// Options goes with [Open].
type Options struct {
	// Root is the directory the store owns.
	Root string
	// Layers keeps the file systems. It must outlive the store.
	Layers *layers.Store
	// Backing keeps content, names and leases; nil keeps them under Root. It must outlive the store.
	Backing Backing
	// Logger takes what the store has to say; nil is silence.
	Logger *slog.Logger
}

// Image is a name and what it stands for.
type Image = images.Image

// layerStore is what this package needs of the layer store.
type layerStore interface {
	Pin(ctx context.Context, ids ...layers.ID) (*layers.Ref, error)
	AddRemote(ctx context.Context, blobs ...layers.RemoteBlob) (*layers.Ref, error)
	Stack(refs ...*layers.Ref) *layers.Ref
	Hold(ctx context.Context, owner string, r *layers.Ref) error
	Held(ctx context.Context, owner string) (*layers.Ref, error)
	Drop(ctx context.Context, owner string) error
	Tar(ctx context.Context, r *layers.Ref, i int) (io.ReadSeekCloser, int64, error)
}

// Store is the local image store. All methods are safe for concurrent use. A name or content that is not there is
// errdefs.ErrNotFound.
type Store struct {
	backing Backing
	books   *bolt.DB
	id      string // of this store among those who share the backing
	content content.Store
	images  images.Store
	leases  leases.Manager
	layers  layerStore
	log     *slog.Logger
	kept    keptSet

	// mu is held while names change, so that the holds in the layer store follow them.
	mu sync.Mutex
}

// Open opens the store under o.Root and drops what a crash left behind.
func Open(ctx context.Context, o Options) (_ *Store, err error) {
	s := &Store{backing: o.Backing, log: o.Logger}
	if o.Layers != nil {
		s.layers = o.Layers
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if err := s.open(ctx, o.Root); err != nil {
		return nil, errors.Join(fmt.Errorf("open image store: %w", err), s.Close())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, root string) (err error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	path := filepath.Join(root, booksName(s.backing))
	s.books, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: lockTimeout})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return fmt.Errorf("%s is in use by another process", path)
	}
	if err != nil {
		return err
	}
	if s.backing == nil {
		if s.backing, err = openOwn(ctx, root, s.books); err != nil {
			return err
		}
	}
	s.content, s.images, s.leases = s.backing.Content(), s.backing.Images(), s.backing.Leases()
	if s.id, err = storeID(s.books); err != nil {
		return err
	}
	return s.recover(ctx)
}

// booksName is the file of what the store itself keeps about a backing.
func booksName(b Backing) string {
	if b == nil {
		return "images.db"
	}
	return "images-" + digest.FromString(b.ID()).Encoded()[:16] + ".db"
}

// Close ends the store.
func (s *Store) Close() error {
	if s.books == nil {
		return nil
	}
	return s.books.Close()
}

// Shared tells whether others than slipway use the content and change the names, as where both are a containerd's.
func (s *Store) Shared() bool { return s.backing.Shared() }

// Content is where manifests, configs and compressed layers are, and all layers if it is shared. What is written outside a lease
// ([Store.WithLease]) and not part of an image is removed by the next GC.
func (s *Store) Content() content.Store { return s.content }

// Images is containerd's view of the names. Change them with [Store.Put] and [Store.Delete], which keep the layers in step.
func (s *Store) Images() images.Store { return s.images }

// GC removes content that no image and no lease refers to.
func (s *Store) GC(ctx context.Context) error {
	if err := s.backing.Collect(ctx); err != nil {
		return fmt.Errorf("collect garbage of the image store: %w", err)
	}
	return s.forgetLostLayers(ctx)
}

const (
	// LabelParent is on the content that is the manifest of an image which a step of the classic builder made: the id of the image it
	// was made of, the digest of that one's config. moby's daemon writes the same label.
	LabelParent = "org.mobyproject.image.parent"
	// FromScratch is in the label of an image that was made of nothing.
	FromScratch = "scratch"
)

// Dangling is the name of an image that has no other.
func Dangling(d digest.Digest) string { return danglingPrefix + d.String() }

const danglingPrefix = "dangling@"

// recover drops what processes before this one left: leases that ended with them, and layers held for images that are gone or
// never came to be.
func (s *Store) recover(ctx context.Context) error {
	if err := s.dropTemporaryLeases(ctx); err != nil {
		return err
	}
	if s.layers == nil {
		return nil
	}
	named, err := s.digests(ctx)
	if err != nil {
		return err
	}
	held, err := s.heldDigests()
	if err != nil {
		return err
	}
	for _, d := range held {
		if named[d] {
			continue
		}
		s.log.InfoContext(ctx, "giving back the layers of an image that is gone", "digest", d)
		if err := s.unhold(ctx, d); err != nil {
			return err
		}
	}
	return nil
}
