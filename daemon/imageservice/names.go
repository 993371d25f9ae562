package imageservice

import (
	"context"
	"strings"

	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/layers/images"
)

// labelRegistry is on a name that was pulled or pushed: the digest of the target, and, after a space, the digest that the name's
// repository has for it. It counts while the name has that target.
const labelRegistry = "slipway.registry"

// atRegistry is the digest by which the registry of a name knows the image; "" if it is not known there.
func atRegistry(n images.Image) digest.Digest {
	target, at, _ := strings.Cut(n.Labels[labelRegistry], " ")
	if target != n.Target.Digest.String() {
		return ""
	}
	return digest.Digest(at)
}

// noteRegistry remembers by which digest the registry of a name knows its target.
func (s *Service) noteRegistry(ctx context.Context, name string, target, at digest.Digest) error {
	image := images.Image{Name: name, Labels: map[string]string{labelRegistry: target.String() + " " + at.String()}}
	_, err := s.images.Images().Update(ctx, image, "labels."+labelRegistry)
	return err
}

// familiar lists the names of an image as people write them: those with a tag, and those with a digest that a registry knows.
func (g *group) familiar() (tags, digests []string) {
	seen := map[string]bool{}
	for _, n := range g.named() {
		named, err := reference.ParseNormalizedNamed(n.Name)
		if err != nil {
			tags = append(tags, n.Name)
			continue
		}
		at := atRegistry(n)
		if d, ok := named.(reference.Digested); ok {
			at = d.Digest()
		} else {
			tags = append(tags, reference.FamiliarString(named))
		}
		if at == "" {
			continue
		}
		if d, err := reference.WithDigest(reference.TrimNamed(named), at); err == nil && !seen[d.String()] {
			seen[d.String()] = true
			digests = append(digests, reference.FamiliarString(d))
		}
	}
	return tags, digests
}

// repositories counts those that the image is named in.
func (g *group) repositories() int {
	seen := map[string]bool{}
	for _, n := range g.named() {
		repo := n.Name
		if named, err := reference.ParseNormalizedNamed(n.Name); err == nil {
			repo = named.Name()
		}
		seen[repo] = true
	}
	return len(seen)
}
