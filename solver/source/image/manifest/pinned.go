package manifest

import (
	"context"
	"fmt"
	"strconv"

	"github.com/containerd/platforms"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/source"
)

// Pinned is a source.Pinned for an image that was read. It holds nothing but memory.
type Pinned struct {
	Image    *Image
	Platform ocispecs.Platform
	// Limit is the number of layers to take; 0 takes all.
	Limit int
	// Description is what people read in errors.
	Description string
	// Add takes hold of the layers.
	Add func(context.Context, []Layer) (*layers.Ref, error)
}

var _ source.Pinned = (*Pinned)(nil)

// Key is made of the manifest's digest, the platform asked for, and the limit. The platform counts because an image that is there for
// one platform only serves all.
func (p *Pinned) Key() solver.Parts {
	parts := solver.Parts{
		{Name: "image", Value: p.Image.Manifest.Digest.String()},
		{Name: "platform", Value: platforms.FormatAll(platforms.Normalize(p.Platform))},
	}
	if p.Limit > 0 {
		parts = append(parts, solver.Part{Name: "layers", Value: strconv.Itoa(p.Limit)})
	}
	return parts
}

// Fetch takes hold of the layers and brings no bytes.
func (p *Pinned) Fetch(ctx context.Context, _ source.Env) (*layers.Ref, error) {
	l := p.Image.Layers
	if p.Limit > 0 && p.Limit < len(l) {
		l = l[:p.Limit]
	}
	r, err := p.Add(ctx, l)
	if err != nil {
		return nil, fmt.Errorf("layers of %s: %w", p.Description, err)
	}
	return r, nil
}

// Close does nothing.
func (p *Pinned) Close() error { return nil }

// Blobs names layers as the layer store knows them, found through ref.
func Blobs(ref string, l []Layer) []layers.RemoteBlob {
	out := make([]layers.RemoteBlob, len(l))
	for i := range l {
		out[i] = layers.RemoteBlob{Ref: ref, Descriptor: l[i].Descriptor, DiffID: l[i].DiffID, CreatedBy: l[i].CreatedBy}
	}
	return out
}

// ParseLimit reads a layer limit: a positive number, or "" for none.
func ParseLimit(s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("invalid layer limit %q", s)
	}
	return n, nil
}

// Name is the digest of what the reference leads to, an index or a manifest.
func (p *Pinned) Name() string { return p.Image.Root.Digest.String() }
