package imageservice

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/source/image/manifest"
	"github.com/slipwaybuild/slipway/solver/source/oci"
	"github.com/slipwaybuild/slipway/solver/source/registry"
)

// blobs gives the bytes of images, downloading those layers that a build left at their registry.
type blobs struct {
	s        *Service
	work     downloads
	resolver *registry.Resolver
	remote   map[digest.Digest]layers.RemoteBlob
	holds    []*layers.Ref
}

var _ content.Provider = (*blobs)(nil)

// blobsOf prepares for the blobs of images, which stay until the lease of leased ends and what is returned is closed, even if the
// images are removed meanwhile.
func (s *Service) blobsOf(plain, leased context.Context, sessions Sessions, images ...*contents) (_ *blobs, err error) {
	b := &blobs{
		s: s, work: downloads{store: s.images.Content(), plain: plain, leased: leased},
		resolver: s.registry.Resolver(registry.ResolverOptions{Sessions: sessions}),
		remote:   map[digest.Digest]layers.RemoteBlob{},
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	for _, c := range images {
		for d := range c.sizes() {
			if _, err := b.work.has(d); err != nil {
				return nil, err
			}
		}
		for _, one := range c.singles {
			if err := b.hold(leased, one); err != nil {
				return nil, err
			}
		}
	}
	return b, nil
}

// hold takes hold of the layers of an image and learns where they can be fetched from.
func (b *blobs) hold(ctx context.Context, one *manifest.Image) error {
	r, err := b.s.stack(ctx, one)
	if errdefs.IsNotFound(err) {
		return nil // who needs what is not there will say so
	}
	if err != nil {
		return err
	}
	b.holds = append(b.holds, r)
	for _, info := range r.Layers() {
		if info.Remote != nil && info.Remote.Ref != "" {
			b.remote[info.Remote.Descriptor.Digest] = *info.Remote
		}
	}
	return nil
}

// close gives the layers back.
func (b *blobs) close() error {
	var errs []error
	for _, r := range b.holds {
		errs = append(errs, r.Release())
	}
	b.holds = nil
	return errors.Join(errs...)
}

// ReaderAt opens a blob, downloading it if need be.
func (b *blobs) ReaderAt(ctx context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	ra, err := b.s.images.Provider().ReaderAt(ctx, d)
	if !errdefs.IsNotFound(err) {
		return ra, err
	}
	if err := b.bring(ctx, d); err != nil {
		return nil, err
	}
	return b.s.images.Provider().ReaderAt(ctx, d)
}

// need makes sure that a blob is here.
func (b *blobs) need(ctx context.Context, d ocispecs.Descriptor) error {
	ra, err := b.ReaderAt(ctx, d)
	if err != nil {
		return err
	}
	return ra.Close()
}

func (b *blobs) bring(ctx context.Context, d ocispecs.Descriptor) error {
	r, ok := b.remote[d.Digest]
	if _, session := oci.ParseRef(r.Ref); !ok || session {
		return fmt.Errorf("layer %s of the image is not here: %w", d.Digest, errdefs.ErrNotFound)
	}
	f, err := b.resolver.Fetcher(ctx, r.Ref)
	if err != nil {
		return err
	}
	return b.work.bring(ctx, f, r.Descriptor, nil)
}

// open reads a blob from its beginning. The caller closes it.
func (b *blobs) open(ctx context.Context, d ocispecs.Descriptor) (io.ReadCloser, error) {
	ra, err := b.ReaderAt(ctx, d)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{counted(ctx, io.NewSectionReader(ra, 0, ra.Size()), nil), ra}, nil
}
