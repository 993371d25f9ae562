package imageservice

import (
	"context"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	digest "github.com/opencontainers/go-digest"
)

// Tag gives an image one more name. The image that had the name before loses it.
func (s *Service) Tag(ctx context.Context, ref, repo, tag string) error {
	name, err := newName(repo, tag)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	g, _, err := s.find(ctx, ref)
	if err != nil {
		return err
	}
	if err := s.images.Put(ctx, name.String(), g.target); err != nil {
		return err
	}
	s.publish(events.ActionTag, g.id().String(), reference.FamiliarString(name))
	return nil
}

// newName is the full name for an image of the store.
func newName(repo, tag string) (reference.NamedTagged, error) {
	named, err := reference.ParseNormalizedNamed(repo)
	if err != nil {
		return nil, &classed{err, errdefs.ErrInvalidArgument}
	}
	if _, ok := named.(reference.Digested); ok {
		return nil, invalid("refusing to create a tag with a digest reference")
	}
	if tag != "" {
		if named, err = reference.WithTag(reference.TrimNamed(named), tag); err != nil {
			return nil, &classed{err, errdefs.ErrInvalidArgument}
		}
	}
	tagged, ok := reference.TagNameOnly(named).(reference.NamedTagged)
	if !ok {
		return nil, invalid("%q is no name with a tag", repo)
	}
	if reference.FamiliarName(tagged) == string(digest.Canonical) {
		return nil, invalid("refusing to create an ambiguous tag using digest algorithm as name")
	}
	return tagged, nil
}
