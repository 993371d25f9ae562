package manifests

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver/remotecache"
	"google.golang.org/grpc/metadata"
)

const (
	// storeHeader tells the client's content service which of its stores is meant.
	storeHeader = "buildkit-attachable-store-id"
	// storePrefix begins the ids of directories of caches.
	storePrefix = "local:"
)

// Directory is a cache in a directory of a client, which the client serves as a content store. Which digest its name stands for is
// written there by the client.
type Directory struct {
	sessions *session.Group
	dir      string
	form     Form

	mu   sync.Mutex
	root digest.Digest // "" if nothing is known to be there
}

var _ remotecache.Target = (*Directory)(nil)

// NewDirectory returns the place. root is the manifest that is there, "" for none that is known of.
func NewDirectory(sessions *session.Group, dir string, root digest.Digest, f Form) *Directory {
	return &Directory{sessions: sessions, dir: dir, root: root, form: f}
}

// Location implements [remotecache.Place].
func (d *Directory) Location() string { return remotecache.NewLocation("local", d.dir) }

// Title implements [remotecache.Place].
func (d *Directory) Title() string { return d.dir }

// with calls f with the content store of the first client that serves it.
func (d *Directory) with(ctx context.Context, f func(context.Context, content.Store) error) error {
	var missing error
	err := d.sessions.Any(ctx, func(_ context.Context, c session.Caller) error {
		ctx := metadata.AppendToOutgoingContext(ctx, storeHeader, storePrefix+d.dir)
		err := f(ctx, proxy.NewContentStore(c.Conn()))
		switch {
		case errdefs.IsNotFound(err):
			missing = err
			return fmt.Errorf("%w: %w", session.ErrNotSupported, err)
		case errdefs.IsNotImplemented(err) || errdefs.IsUnavailable(err):
			return fmt.Errorf("%w: %w", session.ErrNotSupported, err)
		}
		return err
	})
	if err != nil && missing != nil && errors.Is(err, session.ErrNoSession) {
		err = missing
	}
	if err != nil {
		return fmt.Errorf("cache directory %s of the client: %w", d.dir, err)
	}
	return nil
}

// Load implements [remotecache.Place].
func (d *Directory) Load(ctx context.Context) ([]*remotecache.Cache, error) {
	d.mu.Lock()
	root := d.root
	d.mu.Unlock()
	if root == "" {
		return nil, nil
	}
	var size int64
	err := d.with(ctx, func(ctx context.Context, store content.Store) error {
		info, err := store.Info(ctx, root)
		size = info.Size
		return err
	})
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	caches, err := read(ctx, d.Open, ocispecs.Descriptor{Digest: root, Size: size})
	if errdefs.IsNotFound(err) {
		return nil, &remotecache.FormatError{Err: err}
	}
	return caches, err
}

// Has implements [remotecache.Place].
func (d *Directory) Has(ctx context.Context, desc ocispecs.Descriptor) (bool, error) {
	err := d.with(ctx, func(ctx context.Context, store content.Store) error {
		_, err := store.Info(ctx, desc.Digest)
		return err
	})
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// Open implements [remotecache.Place]. The reader belongs to the client's session and fails when that ends.
func (d *Directory) Open(ctx context.Context, desc ocispecs.Descriptor) (io.ReadCloser, error) {
	var out io.ReadCloser
	err := d.with(ctx, func(ctx context.Context, store content.Store) error {
		ra, err := store.ReaderAt(ctx, desc)
		if err != nil {
			return err
		}
		out = struct {
			io.Reader
			io.Closer
		}{io.NewSectionReader(ra, 0, ra.Size()), ra}
		return nil
	})
	return out, err
}

// Put implements [remotecache.Target].
func (d *Directory) Put(ctx context.Context, desc ocispecs.Descriptor, from content.Provider, _ string) error {
	return d.with(ctx, func(ctx context.Context, store content.Store) (err error) {
		ra, err := from.ReaderAt(ctx, desc)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, ra.Close()) }()
		return content.WriteBlob(ctx, store, "cache-"+desc.Digest.String(), io.NewSectionReader(ra, 0, desc.Size), desc)
	})
}

// Save implements [remotecache.Target].
func (d *Directory) Save(ctx context.Context, c *remotecache.Cache, note func(string) func()) (*ocispecs.Descriptor, error) {
	config, root, err := d.form.write(c)
	if err != nil {
		return nil, err
	}
	done := note("writing config " + config.desc.Digest.String())
	if err := d.Put(ctx, config.desc, config, ""); err != nil {
		return nil, fmt.Errorf("error writing config blob: %w", err)
	}
	done()
	done = note(d.form.title(root.desc.Digest))
	if err := d.Put(ctx, root.desc, root, ""); err != nil {
		return nil, fmt.Errorf("error writing manifest blob: %w", err)
	}
	done()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.root = root.desc.Digest
	return &root.desc, nil
}
