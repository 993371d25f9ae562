package images

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	bolt "go.etcd.io/bbolt"
)

// own is the backing of a store that nobody else uses: containerd's content store and metadata database in directories of our own.
type own struct {
	db *metadata.DB
	ns string
}

var _ Backing = own{}

// openOwn opens the backing under root. Its metadata is in books, which stay the caller's.
func openOwn(ctx context.Context, root string, books *bolt.DB) (own, error) {
	blobs, err := local.NewStore(filepath.Join(root, "content"))
	if err != nil {
		return own{}, fmt.Errorf("open content store: %w", err)
	}
	b := own{db: metadata.NewDB(books, blobs, nil), ns: namespaces.Default}
	if err := b.db.Init(ctx); err != nil {
		return own{}, fmt.Errorf("open metadata: %w", err)
	}
	return b, nil
}

// ID is empty: there is one in a root.
func (own) ID() string { return "" }

func (own) Shared() bool { return false }

func (b own) Content() content.Store { return namespacedContent{b.db.ContentStore(), b.ns} }

func (b own) Images() images.Store { return namespacedImages{metadata.NewImageStore(b.db), b.ns} }

func (b own) Leases() leases.Manager { return namespacedLeases{metadata.NewLeaseManager(b.db), b.ns} }

func (b own) Atomically(ctx context.Context, fn func(context.Context) error) error {
	return b.db.Update(func(tx *bolt.Tx) error { return fn(boltutil.WithTransaction(ctx, tx)) })
}

func (b own) Collect(ctx context.Context) error {
	_, err := b.db.GarbageCollect(ctx)
	return err
}

func (own) Unpack(context.Context, Image) error { return nil }
