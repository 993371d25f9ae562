package images

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/layers"
)

// Layers takes hold of the layers that a manifest and its config name, bottom first: those of the layer store where they are
// known, otherwise lazy ones whose bytes are in Content, named by a [layers.RemoteBlob] without Ref. errdefs.ErrNotFound if a
// layer is in neither.
func (s *Store) Layers(ctx context.Context, m ocispecs.Manifest, config ocispecs.Image) (_ *layers.Ref, err error) {
	ids := config.RootFS.DiffIDs
	if len(ids) != len(m.Layers) {
		return nil, fmt.Errorf("image is not valid: its manifest has %d layers, its config %d", len(m.Layers), len(ids))
	}
	if s.layers == nil {
		return nil, fmt.Errorf("layers of the image: no layer store: %w", errdefs.ErrNotFound)
	}
	var parts []*layers.Ref
	defer func() {
		for _, r := range parts {
			err = errors.Join(err, r.Release())
		}
	}()
	for i, d := range ids {
		r, err := s.pin(ctx, d)
		if errors.Is(err, layers.ErrNotFound) {
			r, err = s.lazy(ctx, layers.RemoteBlob{Descriptor: m.Layers[i], DiffID: d})
		}
		if err != nil {
			return nil, fmt.Errorf("layer %d of the image, %s: %w", i+1, d, err)
		}
		parts = append(parts, r)
	}
	return s.layers.Stack(parts...), nil
}

// lazy registers a layer whose compressed bytes are in Content.
func (s *Store) lazy(ctx context.Context, b layers.RemoteBlob) (*layers.Ref, error) {
	if _, err := s.content.Info(ctx, b.Descriptor.Digest); err != nil {
		return nil, err
	}
	return s.layers.AddRemote(ctx, b)
}
