package imageservice

import (
	"context"
	"errors"
	"regexp"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/layers/images"
)

// group is an image with all its names.
type group struct {
	target ocispecs.Descriptor
	names  []images.Image // by name
}

func (g *group) id() digest.Digest { return g.target.Digest }

// dangling tells whether nobody gave the image a name.
func (g *group) dangling() bool { return len(g.named()) == 0 }

// named are the names that somebody gave.
func (g *group) named() (list []images.Image) {
	for _, n := range g.names {
		if n.Name != images.Dangling(g.id()) {
			list = append(list, n)
		}
	}
	return list
}

// groups lists all images.
func (s *Service) groups(ctx context.Context) ([]*group, error) {
	all, err := s.images.List(ctx)
	if err != nil {
		return nil, err
	}
	var list []*group
	at := map[digest.Digest]*group{}
	for _, i := range all {
		g := at[i.Target.Digest]
		if g == nil {
			g = &group{target: i.Target}
			at[i.Target.Digest] = g
			list = append(list, g)
		}
		g.names = append(g.names, i)
	}
	return list, nil
}

// idPattern matches an id or the beginning of one.
var idPattern = regexp.MustCompile(`^(?:sha256:)?([a-f0-9]{1,64})$`)

// find looks an image up. name is the name in the store that ref is, or "" if ref is an id.
func (s *Service) find(ctx context.Context, ref string) (g *group, name string, err error) {
	list, err := s.groups(ctx)
	if err != nil {
		return nil, "", err
	}
	return s.findIn(ctx, list, ref)
}

// findIn looks an image up among those listed.
func (s *Service) findIn(ctx context.Context, list []*group, ref string) (g *group, name string, err error) {
	missing := &NotFoundError{Name: ref}
	id := idPattern.FindStringSubmatch(ref)
	if id == nil || !strings.HasPrefix(ref, "sha256:") && len(id[1]) < 64 {
		named, err := reference.ParseNormalizedNamed(ref)
		if err != nil {
			return nil, "", invalid("invalid reference format: %w", err)
		}
		named = reference.TagNameOnly(named)
		missing.Name = reference.FamiliarString(named)
		if g, name := byName(list, named); g != nil {
			return g, name, nil
		}
	}
	if id == nil {
		return nil, "", missing
	}
	g, err = s.byID(ctx, list, id[1])
	if g == nil && err == nil {
		err = missing
	}
	return g, "", err
}

// byName finds a name, and a digest under any name of its repository.
func byName(list []*group, named reference.Named) (*group, string) {
	wanted, digested := named.(reference.Digested)
	for _, g := range list {
		for _, n := range g.names {
			if n.Name == named.String() {
				return g, n.Name
			}
			if !digested {
				continue
			}
			other, err := reference.ParseNormalizedNamed(n.Name)
			if err == nil && other.Name() == named.Name() && (g.id() == wanted.Digest() || atRegistry(n) == wanted.Digest()) {
				return g, n.Name
			}
		}
	}
	return nil, ""
}

// byID finds the one image with a digest that begins like this. The image's own digest counts before those of what is in it.
func (s *Service) byID(ctx context.Context, list []*group, prefix string) (*group, error) {
	var found []*group
	for _, g := range list {
		if strings.HasPrefix(g.id().Encoded(), prefix) {
			found = append(found, g)
		}
	}
	if len(found) == 0 {
		for _, g := range list {
			in, err := s.holds(ctx, g, prefix)
			if err != nil {
				return nil, err
			}
			if in {
				found = append(found, g)
			}
		}
		// The same config in several images, packed differently, is the same image to whoever asks.
		if len(prefix) == 64 && len(found) > 1 {
			found = found[:1]
		}
	}
	switch len(found) {
	case 0:
		return nil, nil
	case 1:
		return found[0], nil
	}
	return nil, invalid("ambiguous image id %s: %d images begin so", prefix, len(found))
}

// holds tells whether the digest of a manifest or config in an image begins like this.
func (s *Service) holds(ctx context.Context, g *group, prefix string) (bool, error) {
	c, err := s.read(ctx, g.target)
	if errors.Is(err, errdefs.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, one := range c.singles {
		if strings.HasPrefix(one.Manifest.Digest.Encoded(), prefix) || strings.HasPrefix(one.Config.Digest.Encoded(), prefix) {
			return true, nil
		}
	}
	return false, nil
}
