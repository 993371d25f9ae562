package image

import (
	"context"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/source/oci"
	"github.com/slipwaybuild/slipway/solver/source/registry"
)

// Fetcher returns a fetcher that opens blobs for the sessions of whoever waits at the time: from the content store if they are
// there, otherwise from the client's OCI layout or the registry that their reference names. It holds nothing.
func (s *Source) Fetcher(sessions func() *session.Group) layers.Fetcher {
	return &fetcher{s: s, sessions: sessions, registry: s.registry.Resolver(registry.ResolverOptions{Sessions: sessions})}
}

type fetcher struct {
	s        *Source
	sessions func() *session.Group
	registry *registry.Resolver
}

// Fetch implements [layers.Fetcher].
func (f *fetcher) Fetch(ctx context.Context, b layers.RemoteBlob) (io.ReadCloser, error) {
	ra, err := f.s.images.Content().ReaderAt(ctx, b.Descriptor)
	if err == nil {
		return struct {
			io.Reader
			io.Closer
		}{io.NewSectionReader(ra, 0, ra.Size()), ra}, nil
	}
	if !errdefs.IsNotFound(err) {
		return nil, fmt.Errorf("read layer %s: %w", b.Descriptor.Digest, err)
	}
	if b.Ref == "" {
		return nil, fmt.Errorf("layer %s was in the content store and is gone: %w", b.Descriptor.Digest, err)
	}
	if store, ok := oci.ParseRef(b.Ref); ok {
		return oci.Open(ctx, f.sessions(), store, b.Descriptor)
	}
	r, err := f.registry.Fetcher(ctx, b.Ref)
	if err != nil {
		return nil, err
	}
	return r.Fetch(ctx, b.Descriptor)
}
