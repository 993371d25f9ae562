package imageservice

import (
	"context"
	"time"

	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Details is all about one image.
type Details struct {
	Summary
	// Target is the manifest or index.
	Target ocispecs.Descriptor
	// ConfigJSON is the config of the platform that the daemon would take, byte for byte, and Config what is known of it. Both are
	// empty if no manifest of the image is here.
	ConfigJSON []byte
	Config     ocispecs.Image
	// Named is when the image got its latest name.
	Named time.Time
}

// Inspect returns all about an image.
func (s *Service) Inspect(ctx context.Context, ref string) (*Details, error) {
	g, _, err := s.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	d := &Details{Target: g.target}
	var c *contents
	if d.Summary, c, err = s.summary(ctx, g); err != nil {
		return nil, err
	}
	for _, n := range g.names {
		if n.UpdatedAt.After(d.Named) {
			d.Named = n.UpdatedAt
		}
	}
	if c == nil {
		return d, nil
	}
	if one := s.single(c); one != nil {
		d.ConfigJSON, d.Config = one.ConfigJSON, one.Parsed
	}
	return d, nil
}

// Step is one entry of an image's history.
type Step struct {
	// ID is the image's at the newest step and empty at all others; so are Tags.
	ID                 digest.Digest
	Tags               []string
	Created            time.Time
	CreatedBy, Comment string
	// Size is what the step's layer takes, in bytes as the manifest says.
	Size int64
}

// History returns the steps that made an image, newest first.
func (s *Service) History(ctx context.Context, ref string) ([]Step, error) {
	g, _, err := s.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	c, err := s.read(ctx, g.target)
	if err != nil {
		return nil, err
	}
	out := []Step{}
	one := s.single(c)
	if one == nil {
		return out, nil
	}
	layer := 0
	for _, h := range one.Parsed.History {
		step := Step{CreatedBy: h.CreatedBy, Comment: h.Comment}
		if h.Created != nil {
			step.Created = *h.Created
		}
		if !h.EmptyLayer && layer < len(one.Layers) {
			step.Size = one.Layers[layer].Descriptor.Size
			layer++
		}
		out = append([]Step{step}, out...)
	}
	if len(out) > 0 {
		out[0].ID = g.id()
		out[0].Tags, _ = g.familiar()
	}
	return out, nil
}
