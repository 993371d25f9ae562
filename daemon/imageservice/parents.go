package imageservice

import (
	"context"
	"errors"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/layers/images"
)

// lineage is which images others were made of, step by step, by the classic builder. Docker shows those without a name only to who
// asks for all, and removes none from under its children.
type lineage struct {
	// config is the id (config digest) of an image, parent that of the image it was made of, by manifest.
	config, parent map[digest.Digest]digest.Digest
	// children counts the images that were made of one, by its id.
	children map[digest.Digest]int
}

func (s *Service) lineage(ctx context.Context, list []*group) (*lineage, error) {
	l := &lineage{config: map[digest.Digest]digest.Digest{}, parent: map[digest.Digest]digest.Digest{}, children: map[digest.Digest]int{}}
	for _, g := range list {
		info, err := s.images.Content().Info(ctx, g.id())
		if errors.Is(err, errdefs.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if p := digest.Digest(info.Labels[images.LabelParent]); p != "" {
			l.parent[g.id()] = p
			l.children[p]++
		}
	}
	if len(l.children) == 0 {
		return l, nil
	}
	for _, g := range list {
		c, err := s.read(ctx, g.target)
		if err != nil {
			continue // nothing can have been made of it
		}
		if one := s.single(c); one != nil {
			l.config[g.id()] = one.Config.Digest
		}
	}
	return l, nil
}

// hasChildren tells whether others were made of an image.
func (l *lineage) hasChildren(g *group) bool {
	config, ok := l.config[g.id()]
	return ok && l.children[config] > 0
}

// intermediate tells whether an image is there for its children only.
func (l *lineage) intermediate(g *group) bool { return g.dangling() && l.hasChildren(g) }

// orphan is the image that one which is gone was made of, if it has no name and nothing else was made of it; nil otherwise.
func (l *lineage) orphan(gone *group, list []*group) *group {
	parent, ok := l.parent[gone.id()]
	if !ok {
		return nil
	}
	l.children[parent]--
	if l.children[parent] > 0 {
		return nil
	}
	for _, g := range list {
		if g.dangling() && l.config[g.id()] == parent {
			return g
		}
	}
	return nil
}
