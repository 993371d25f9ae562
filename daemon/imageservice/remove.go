package imageservice

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/slipwaybuild/slipway/solver/layers/images"
)

// Removed is one thing that went: a name, or an image.
type Removed struct{ Untagged, Deleted string }

// Remove takes a name off an image, or, given an id, all its names. With its last name an image is gone. An image with names in
// several repositories is not removed by id unless forced.
func (s *Service) Remove(ctx context.Context, ref string, force bool) ([]Removed, error) {
	out, err := s.remove(ctx, ref, force)
	if err != nil {
		return nil, err
	}
	return out, s.images.GC(ctx)
}

func (s *Service) remove(ctx context.Context, ref string, force bool) ([]Removed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, name, err := s.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	if name == "" {
		if n := g.repositories(); n > 1 && !force {
			return nil, conflict("conflict: unable to delete %s (must be forced) - image is referenced in multiple repositories", shortRef(ref))
		}
		return s.removeAll(ctx, g)
	}
	if len(g.names) == 1 {
		return s.removeAll(ctx, g)
	}
	return s.untag(ctx, g, name)
}

// shortRef is an id as docker's messages show it.
func shortRef(ref string) string {
	ref = strings.TrimPrefix(ref, "sha256:")
	return ref[:min(12, len(ref))]
}

func (s *Service) untag(ctx context.Context, g *group, name string) ([]Removed, error) {
	if err := s.images.Delete(ctx, name); err != nil {
		return nil, err
	}
	if name == images.Dangling(g.id()) {
		return nil, nil
	}
	if named, err := reference.ParseNormalizedNamed(name); err == nil {
		name = reference.FamiliarString(named)
	}
	s.publish(events.ActionUnTag, g.id().String(), name)
	return []Removed{{Untagged: name}}, nil
}

// removeAll removes an image with all its names.
func (s *Service) removeAll(ctx context.Context, g *group) (out []Removed, err error) {
	_, digests := g.familiar()
	for _, n := range g.names {
		names, err := s.untag(ctx, g, n.Name)
		if err != nil {
			return out, err
		}
		out = append(out, names...)
	}
	for _, d := range digests {
		out = append(out, Removed{Untagged: d})
	}
	s.publish(events.ActionDelete, g.id().String(), g.id().String())
	return append(out, Removed{Deleted: g.id().String()}), nil
}

// PruneOptions say which images go.
type PruneOptions struct {
	// All removes images that have names, too: no container here uses any.
	All bool
	// Labels, NotLabels and Until are those of [ListOptions].
	Labels, NotLabels []string
	Until             time.Time
}

// Prune removes images, and returns the bytes that it freed on disk.
func (s *Service) Prune(ctx context.Context, o PruneOptions) ([]Removed, int64, error) {
	before, err := s.onDisk(ctx)
	if err != nil {
		return nil, 0, err
	}
	out, err := s.prune(ctx, o)
	if err != nil {
		return out, 0, err
	}
	if err := s.images.GC(ctx); err != nil {
		return out, 0, err
	}
	after, err := s.onDisk(ctx)
	if err != nil {
		return out, 0, err
	}
	freed := max(0, before-after)
	s.events.Publish(events.ImageEventType, events.ActionPrune, "", map[string]string{"reclaimed": strconv.FormatInt(freed, 10)})
	return out, freed, nil
}

// prune goes round until there is nothing more: an image that is gone may leave its parent without children.
func (s *Service) prune(ctx context.Context, o PruneOptions) (out []Removed, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		removed, err := s.pruneRound(ctx, o)
		out = append(out, removed...)
		if err != nil || len(removed) == 0 {
			return out, err
		}
	}
}

func (s *Service) pruneRound(ctx context.Context, o PruneOptions) (out []Removed, err error) {
	narrow := ListOptions{Labels: o.Labels, NotLabels: o.NotLabels, Until: o.Until}
	list, err := s.groups(ctx)
	if err != nil {
		return nil, err
	}
	made, err := s.parents(ctx, list)
	if err != nil {
		return nil, err
	}
	for _, g := range list {
		if !o.All && !g.dangling() {
			continue
		}
		sum, c, err := s.summary(ctx, g)
		if err != nil {
			return out, err
		}
		if s.intermediate(g, c, made) {
			continue
		}
		if keep, err := narrow.keeps(g, &sum); err != nil || !keep {
			continue
		}
		removed, err := s.removeAll(ctx, g)
		out = append(out, removed...)
		if err != nil {
			return out, err
		}
	}
	return out, nil
}
