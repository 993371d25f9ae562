package imageservice

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/layers"
)

// ImportOptions say what becomes of a root file system.
type ImportOptions struct {
	// Name is the image's; nil is none.
	Name reference.Named
	// Message is the comment of its one step.
	Message string
	// Config is that of processes, and Platform the image's, by default the service's.
	Config   ocispecs.ImageConfig
	Platform *ocispecs.Platform
}

// Import makes an image of one layer from a tar, compressed or not, and returns its id.
func (s *Service) Import(ctx context.Context, r io.Reader, o ImportOptions) (id digest.Digest, err error) {
	z, err := decompressed(bufio.NewReaderSize(counted(ctx, r, nil), 64<<10))
	if err != nil {
		return "", invalid("the file system cannot be read: %w", err)
	}
	defer func() { _ = z.Close() }() // it was only read
	size := int64(0)
	layer, err := s.layers.Import(ctx, counted(ctx, z, func(n int64) { size = n }), layers.ImportOptions{
		Labels: layers.Labels{Description: "imported file system"},
	})
	if err != nil {
		return "", importFailure(ctx, err)
	}
	defer func() { err = errors.Join(err, layer.Release()) }()
	err = s.leased(ctx, func(ctx context.Context) error {
		d, err := s.imported(ctx, layer, size, o)
		if err != nil {
			return err
		}
		name := ""
		if o.Name != nil {
			name = o.Name.String()
		}
		id = d.Digest
		return s.images.Put(ctx, name, d, layer)
	})
	if err != nil {
		return "", err
	}
	s.publish(events.ActionImport, id.String(), id.String())
	return id, nil
}

// imported writes the config and the manifest.
func (s *Service) imported(ctx context.Context, layer *layers.Ref, size int64, o ImportOptions) (ocispecs.Descriptor, error) {
	diffID := layer.Layers()[0].DiffID
	now := time.Now().UTC()
	config := ocispecs.Image{
		Created: &now, Platform: s.platform, Config: o.Config,
		RootFS:  ocispecs.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}},
		History: []ocispecs.History{{Created: &now, Comment: o.Message}},
	}
	if o.Platform != nil {
		config.Platform = platforms.Normalize(*o.Platform)
	}
	c, err := s.writeJSON(ctx, ocispecs.MediaTypeImageConfig, config)
	if err != nil {
		return c, err
	}
	return s.writeJSON(ctx, ocispecs.MediaTypeImageManifest, ocispecs.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest, Config: c,
		Layers: []ocispecs.Descriptor{{MediaType: ocispecs.MediaTypeImageLayer, Digest: diffID, Size: size}},
	})
}

// writeJSON puts a document into the content store.
func (s *Service) writeJSON(ctx context.Context, mediaType string, v any) (ocispecs.Descriptor, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return ocispecs.Descriptor{}, err
	}
	return s.writeDocument(ctx, mediaType, b)
}

func (s *Service) writeDocument(ctx context.Context, mediaType string, b []byte) (ocispecs.Descriptor, error) {
	d := ocispecs.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	err := content.WriteBlob(ctx, s.images.Content(), "document-"+d.Digest.String(), bytes.NewReader(b), d)
	return d, err
}
