package remotecache

import (
	"context"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Place is where one cache is kept. All methods are safe for concurrent use. What is not there is errdefs.ErrNotFound.
type Place interface {
	// Location is the Ref of remote blobs that are there. It holds no credentials.
	Location() string
	// Title is how people know it: a reference, a directory, a bucket.
	Title() string
	// Load reads the caches under the name, one or, of an image for several platforms, several; none if there is nothing.
	Load(ctx context.Context) ([]*Cache, error)
	// Has tells whether a blob is there.
	Has(ctx context.Context, d ocispecs.Descriptor) (bool, error)
	// Open opens a blob. The caller closes it, and verifies what it reads.
	Open(ctx context.Context, d ocispecs.Descriptor) (io.ReadCloser, error)
}

// Target is a Place that can be written to.
type Target interface {
	Place
	// Put brings a blob, unless it is there. from, which may be empty, is a registry reference it may be mounted from.
	Put(ctx context.Context, d ocispecs.Descriptor, blob content.Provider, from string) error
	// Save replaces the cache under the name. The blobs of its layers are there. It returns what clients are told: the descriptor of
	// the manifest, if there is one.
	Save(ctx context.Context, c *Cache, note func(string) (done func())) (*ocispecs.Descriptor, error)
}
