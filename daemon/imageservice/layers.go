package imageservice

import (
	"context"
	"errors"

	"github.com/containerd/errdefs"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/source/image/manifest"
)

// stack takes hold of the layers of one platform's image. errdefs.ErrNotFound if one is nowhere.
func (s *Service) stack(ctx context.Context, one *manifest.Image) (*layers.Ref, error) {
	m, c := ocispecs.Manifest{}, ocispecs.Image{}
	for _, l := range one.Layers {
		m.Layers = append(m.Layers, l.Descriptor)
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, l.DiffID)
	}
	return s.images.Layers(ctx, m, c)
}

// put names an image and holds the layers of all its platforms that are here.
func (s *Service) put(ctx context.Context, name string, c *contents) (err error) {
	var refs []*layers.Ref
	defer func() {
		for _, r := range refs {
			err = errors.Join(err, r.Release())
		}
	}()
	for _, one := range c.singles {
		r, err := s.stack(ctx, one)
		if errdefs.IsNotFound(err) {
			continue // a platform of which there is but the manifest
		}
		if err != nil {
			return err
		}
		refs = append(refs, r)
	}
	return s.images.Put(ctx, name, c.target, refs...)
}
