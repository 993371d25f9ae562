package imageservice

import (
	"context"
	"errors"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/layers/images"
)

// parents are the ids (config digests) of the images that others were made of, step by step, by the classic builder. Docker shows
// such images only to who asks for all, and removes none from under its children.
type parents map[digest.Digest]bool

func (s *Service) parents(ctx context.Context, list []*group) (parents, error) {
	all := parents{}
	for _, g := range list {
		info, err := s.images.Content().Info(ctx, g.target.Digest)
		if errors.Is(err, errdefs.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if p := info.Labels[images.LabelParent]; p != "" {
			all[digest.Digest(p)] = true
		}
	}
	return all, nil
}

// intermediate tells whether an image without a name is there for its children only.
func (s *Service) intermediate(g *group, c *contents, of parents) bool {
	if !g.dangling() || c == nil {
		return false
	}
	one := s.single(c)
	return one != nil && of[one.Config.Digest]
}
