package images

import (
	"context"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
)

// Backing is what a [Store] keeps content, names and leases in: directories of its own, or a containerd that others use, too. It
// is of one namespace, which its callers need not put on their contexts. All methods are safe for concurrent use.
type Backing interface {
	// ID is the same whenever the same content, names and leases are meant, and differs from those of all other backings.
	ID() string
	// Shared tells that others read the content and change the names. An image in a shared backing is whole without the layer
	// store: the bytes of its layers are among the content. In one that is not shared the layer store has them.
	Shared() bool
	// Content is the content store.
	Content() content.Store
	// Images are the names.
	Images() images.Store
	// Leases keep content.
	Leases() leases.Manager
	// Atomically runs fn with a context under which changes of names happen together or not at all, if the backing can do so.
	// In one that cannot they happen in order. fn must use that context for all it does with the backing.
	Atomically(ctx context.Context, fn func(context.Context) error) error
	// Collect removes content that no name and no lease refers to, and returns when it is gone.
	Collect(ctx context.Context) error
	// Unpack makes the file system of an image for this host's platform ready for containers of whoever shares the backing.
	// An image without that platform, and a backing without such others, have nothing to be done.
	Unpack(ctx context.Context, image Image) error
}
