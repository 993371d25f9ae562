package imageservice

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	cimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/source/image/manifest"
)

// maxDepth bounds how far an index may refer to another, and maxManifests how many manifests an image may have.
const (
	maxDepth     = 4
	maxManifests = 1000
)

// contents is what there is of an image here.
type contents struct {
	target ocispecs.Descriptor
	// singles are the images of one platform whose manifest and config are here.
	singles []*manifest.Image
	// indexes are the target and what is below it, parents first; empty if the target is a manifest.
	indexes []ocispecs.Descriptor
	// attestations are manifests here that describe others.
	attestations []ocispecs.Descriptor
	// missing are manifests that are not here.
	missing []ocispecs.Descriptor
}

// read finds out what there is of an image. errdefs.ErrNotFound if its target is not there.
func (s *Service) read(ctx context.Context, target ocispecs.Descriptor) (*contents, error) {
	c := &contents{target: target}
	if err := s.descend(ctx, c, target, maxDepth); err != nil {
		return nil, fmt.Errorf("read image %s: %w", target.Digest, err)
	}
	return c, nil
}

func (s *Service) descend(ctx context.Context, c *contents, d ocispecs.Descriptor, depth int) error {
	get := manifest.Through(s.images.Content(), nil)
	if !cimages.IsIndexType(d.MediaType) {
		img, err := manifest.Read(ctx, get, d, s.platform)
		if err == nil {
			c.singles = append(c.singles, img)
		}
		return err
	}
	if depth == 0 {
		return fmt.Errorf("%w: indexes are nested too deeply", manifest.ErrNotImage)
	}
	b, err := get(ctx, d)
	if err != nil {
		return err
	}
	var index ocispecs.Index
	if err := json.Unmarshal(b, &index); err != nil {
		return fmt.Errorf("%w: index %s: %w", manifest.ErrNotImage, d.Digest, err)
	}
	c.indexes = append(c.indexes, d)
	for _, m := range index.Manifests {
		if len(c.singles)+len(c.missing)+len(c.attestations) >= maxManifests {
			return fmt.Errorf("%w: more than %d manifests", manifest.ErrNotImage, maxManifests)
		}
		if isAttestation(m) {
			if _, err := s.images.Content().Info(ctx, m.Digest); err == nil {
				c.attestations = append(c.attestations, m)
			} else {
				c.missing = append(c.missing, m)
			}
			continue
		}
		err := s.descend(ctx, c, m, depth-1)
		if errors.Is(err, errdefs.ErrNotFound) {
			c.missing = append(c.missing, m)
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func isAttestation(d ocispecs.Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] != ""
}

// single is the image that the service's platform would take; nil if there is none of any platform.
func (s *Service) single(c *contents) *manifest.Image {
	var best *manifest.Image
	match := platforms.Only(platforms.Normalize(s.platform))
	for _, one := range c.singles {
		p := platforms.Normalize(one.Parsed.Platform)
		if best == nil || match.Match(p) && (!match.Match(platforms.Normalize(best.Parsed.Platform)) ||
			match.Less(p, platforms.Normalize(best.Parsed.Platform))) {
			best = one
		}
	}
	return best
}

// sizes lists what the image consists of, each digest once, in bytes as its descriptors say.
func (c *contents) sizes() map[digest.Digest]int64 {
	out := map[digest.Digest]int64{}
	for _, d := range c.indexes {
		out[d.Digest] = d.Size
	}
	for _, one := range c.singles {
		out[one.Manifest.Digest], out[one.Config.Digest] = one.Manifest.Size, one.Config.Size
		for _, l := range one.Layers {
			out[l.Descriptor.Digest] = l.Descriptor.Size
		}
	}
	return out
}

func (c *contents) size() (n int64) {
	for _, size := range c.sizes() {
		n += size
	}
	return n
}
