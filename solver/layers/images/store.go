package images

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
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
	// Namespace is containerd's; empty is "default".
	Namespace string
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
	Drop(ctx context.Context, owner string) error
	tarOpener
}

// Store is the local image store. All methods are safe for concurrent use. A name or content that is not there is
// errdefs.ErrNotFound.
type Store struct {
	bolt    *bolt.DB
	db      *metadata.DB
	content content.Store
	images  images.Store
	leases  leases.Manager
	layers  layerStore
	ns      string
	log     *slog.Logger
	kept    keptSet

	// mu is held while names change, so that the holds in the layer store follow them.
	mu sync.Mutex
}

// Open opens the store under o.Root and drops what a crash left behind.
func Open(ctx context.Context, o Options) (_ *Store, err error) {
	s := &Store{ns: o.Namespace, log: o.Logger}
	if o.Layers != nil {
		s.layers = o.Layers
	}
	if s.ns == "" {
		s.ns = namespaces.Default
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(o.Root, 0o700); err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	blobs, err := local.NewStore(filepath.Join(o.Root, "content"))
	if err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	s.bolt, err = bolt.Open(filepath.Join(o.Root, "images.db"), 0o600, &bolt.Options{Timeout: lockTimeout})
	if err != nil {
		if errors.Is(err, bolterrors.ErrTimeout) {
			err = fmt.Errorf("%s is in use by another process", filepath.Join(o.Root, "images.db"))
		}
		return nil, fmt.Errorf("open image store: %w", err)
	}
	s.db = metadata.NewDB(s.bolt, blobs, nil)
	if err := s.db.Init(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open image store: %w", err), s.Close())
	}
	s.content = namespacedContent{s.db.ContentStore(), s.ns}
	s.images = namespacedImages{metadata.NewImageStore(s.db), s.ns}
	s.leases = metadata.NewLeaseManager(s.db)
	if err := s.recover(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open image store: %w", err), s.Close())
	}
	return s, nil
}

// Close ends the store.
func (s *Store) Close() error { return s.db.Close() }

// Content is where manifests, configs and compressed layers are. What is written outside a lease ([Store.WithLease]) and not
// part of an image is removed by the next GC.
func (s *Store) Content() content.Store { return s.content }

// Images is containerd's view of the names. Change them with [Store.Put] and [Store.Delete], which keep the layers in step.
func (s *Store) Images() images.Store { return s.images }

// GC removes content that no image and no lease refers to.
func (s *Store) GC(ctx context.Context) error {
	if _, err := s.db.GarbageCollect(ctx); err != nil {
		return fmt.Errorf("collect garbage of the image store: %w", err)
	}
	return s.forgetLostLayers(ctx)
}

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
