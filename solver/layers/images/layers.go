package images

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
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
		r, err := s.layer(ctx, layers.RemoteBlob{Descriptor: m.Layers[i], DiffID: d})
		if err != nil {
			return nil, fmt.Errorf("layer %d of the image, %s: %w", i+1, d, err)
		}
		parts = append(parts, r)
	}
	return s.layers.Stack(parts...), nil
}

// layer takes hold of one layer: the layer store's if it is local or can be had as b says, otherwise one in Content.
func (s *Store) layer(ctx context.Context, b layers.RemoteBlob) (*layers.Ref, error) {
	r, err := s.pin(ctx, b.DiffID)
	if errors.Is(err, layers.ErrNotFound) {
		return s.lazy(ctx, b)
	}
	if err != nil {
		return nil, err
	}
	switch known := r.Layers()[0]; {
	case known.Kind != layers.Remote:
		return r, nil
	case known.Remote != nil && known.Remote.Descriptor.Digest == b.Descriptor.Digest:
		return r, s.keepFor(ctx, usePeriod, []digest.Digest{b.Descriptor.Digest})
	}
	near, err := s.lazy(ctx, b)
	if errdefs.IsNotFound(err) {
		return r, nil // elsewhere only
	}
	return near, errors.Join(err, r.Release())
}

// lazy registers a layer whose bytes are in Content, and keeps them for a while: whoever asks for it now reads it later.
func (s *Store) lazy(ctx context.Context, b layers.RemoteBlob) (*layers.Ref, error) {
	if _, err := s.content.Info(ctx, b.Descriptor.Digest); err != nil {
		return nil, err
	}
	if err := s.keepFor(ctx, usePeriod, []digest.Digest{b.Descriptor.Digest}); err != nil {
		return nil, err
	}
	return s.layers.AddRemote(ctx, b)
}
