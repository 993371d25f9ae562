// Package contents shows several content stores as one that can only be read: what BuildKit's clients read the blobs of build records
// and results from.
package contents

import (
	"context"
	"fmt"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/services/content/contentserver"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
)

// Reader is what is needed of each store.
type Reader interface {
	content.Provider
	content.InfoProvider
	Walk(ctx context.Context, fn content.WalkFunc, filters ...string) error
}

// Union reads from the first store that has what is asked for. Changing anything fails. It is safe for concurrent use if its stores are.
type Union struct{ stores []Reader }

var _ content.Store = (*Union)(nil)

// New returns a union; the stores stay the caller's.
func New(stores ...Reader) *Union { return &Union{stores: stores} }

// Register puts containerd's content service on a server. Namespaces that clients send have no meaning: there is one content for all.
func (u *Union) Register(g *grpc.Server) { contentapi.RegisterContentServer(g, contentserver.New(u)) }

// first asks one store after the other until one knows an answer.
func first[T any](u *Union, what digest.Digest, ask func(Reader) (T, error)) (answer T, err error) {
	for _, s := range u.stores {
		answer, err = ask(s)
		if !errdefs.IsNotFound(err) {
			return answer, err
		}
	}
	return answer, fmt.Errorf("content %s: %w", what, errdefs.ErrNotFound)
}

// Info describes a blob.
func (u *Union) Info(ctx context.Context, d digest.Digest) (content.Info, error) {
	if err := d.Validate(); err != nil {
		return content.Info{}, fmt.Errorf("content %q: %w: %w", d, err, errdefs.ErrInvalidArgument)
	}
	return first(u, d, func(s Reader) (content.Info, error) { return s.Info(ctx, d) })
}

// ReaderAt opens a blob. The caller closes it; it stays readable when the blob is removed meanwhile.
func (u *Union) ReaderAt(ctx context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("content %q: %w: %w", d.Digest, err, errdefs.ErrInvalidArgument)
	}
	return first(u, d.Digest, func(s Reader) (content.ReaderAt, error) { return s.ReaderAt(ctx, d) })
}

// Walk tells of the first store's blobs. What the others have is there for those who know its digest: BuildKit's clients take what is
// listed for what history and builds keep, and images of other clients are not theirs to list.
func (u *Union) Walk(ctx context.Context, fn content.WalkFunc, filters ...string) error {
	if len(u.stores) == 0 {
		return nil
	}
	return u.stores[0].Walk(ctx, fn, filters...)
}

// Status knows of no writes.
func (u *Union) Status(_ context.Context, ref string) (content.Status, error) {
	return content.Status{}, fmt.Errorf("write %q: %w", ref, errdefs.ErrNotFound)
}

// ListStatuses knows of no writes.
func (u *Union) ListStatuses(context.Context, ...string) ([]content.Status, error) { return nil, nil }

var errReadOnly = fmt.Errorf("this content store can only be read: %w", errdefs.ErrPermissionDenied)

// Writer fails.
func (u *Union) Writer(context.Context, ...content.WriterOpt) (content.Writer, error) {
	return nil, errReadOnly
}

// Update fails.
func (u *Union) Update(context.Context, content.Info, ...string) (content.Info, error) {
	return content.Info{}, errReadOnly
}

// Delete fails.
func (u *Union) Delete(context.Context, digest.Digest) error { return errReadOnly }

// Abort fails.
func (u *Union) Abort(context.Context, string) error { return errReadOnly }

// WithLayers is a store whose blobs are also those of layers, which cannot be listed.
func WithLayers(s Reader, layers content.Provider) Reader { return withLayers{s, layers} }

type withLayers struct {
	Reader
	layers content.Provider
}

func (w withLayers) ReaderAt(ctx context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	ra, err := w.Reader.ReaderAt(ctx, d)
	if !errdefs.IsNotFound(err) {
		return ra, err
	}
	return w.layers.ReaderAt(ctx, d)
}

func (w withLayers) Info(ctx context.Context, d digest.Digest) (content.Info, error) {
	info, err := w.Reader.Info(ctx, d)
	if !errdefs.IsNotFound(err) {
		return info, err
	}
	ra, err := w.layers.ReaderAt(ctx, ocispecs.Descriptor{Digest: d})
	if err != nil {
		return content.Info{}, err
	}
	info = content.Info{Digest: d, Size: ra.Size()}
	return info, ra.Close()
}
