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

// RemoveOptions say how an image is removed.
type RemoveOptions struct {
	// Force removes by id what has names in several repositories.
	Force bool
	// KeepParents leaves the images without a name that it was made of, which otherwise go with their last child.
	KeepParents bool
}

// Remove takes a name off an image, or, given an id, all its names. With its last name an image is gone, unless others were made of it:
// then it stays without a name until they go. An image with names in several repositories is not removed by id unless forced, one
// that others were made of not at all.
func (s *Service) Remove(ctx context.Context, ref string, o RemoveOptions) ([]Removed, error) {
	out, err := s.remove(ctx, ref, o)
	if err != nil {
		return nil, err
	}
	return out, s.images.GC(ctx)
}

func (s *Service) remove(ctx context.Context, ref string, o RemoveOptions) ([]Removed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, err := s.groups(ctx)
	if err != nil {
		return nil, err
	}
	g, name, err := s.findIn(ctx, list, ref)
	if err != nil {
		return nil, err
	}
	if name != "" && len(g.names) > 1 {
		return s.untag(ctx, g, name)
	}
	if n := g.repositories(); name == "" && n > 1 && !o.Force {
		return nil, conflict("conflict: unable to delete %s (must be forced) - image is referenced in multiple repositories", shortRef(ref))
	}
	line, err := s.lineage(ctx, list)
	if err != nil {
		return nil, err
	}
	if line.hasChildren(g) {
		if name == "" || g.dangling() {
			return nil, conflict("conflict: unable to delete %s (cannot be forced) - image has dependent child images", shortRef(ref))
		}
		return s.untagAll(ctx, g, true)
	}
	out, err := s.removeAll(ctx, g)
	if err != nil || o.KeepParents {
		return out, err
	}
	more, err := s.removeParents(ctx, g, list, line)
	return append(out, more...), err
}

// removeParents removes what an image that is gone was made of, as far as nobody gave it a name and nothing else was made of it.
func (s *Service) removeParents(ctx context.Context, of *group, list []*group, line *lineage) (out []Removed, err error) {
	for p := line.orphan(of, list); p != nil; p = line.orphan(p, list) {
		removed, err := s.removeAll(ctx, p)
		out = append(out, removed...)
		if err != nil {
			return out, err
		}
	}
	return out, nil
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
func (s *Service) removeAll(ctx context.Context, g *group) ([]Removed, error) {
	out, err := s.untagAll(ctx, g, false)
	if err != nil {
		return out, err
	}
	s.publish(events.ActionDelete, g.id().String(), g.id().String())
	return append(out, Removed{Deleted: g.id().String()}), nil
}

// untagAll takes all names off an image, which may stay without one.
func (s *Service) untagAll(ctx context.Context, g *group, stays bool) (out []Removed, err error) {
	if stays {
		if err := s.images.Put(ctx, images.Dangling(g.id()), g.target); err != nil {
			return nil, err
		}
	}
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
	return out, nil
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
	line, err := s.lineage(ctx, list)
	if err != nil {
		return nil, err
	}
	for _, g := range list {
		if !o.All && !g.dangling() {
			continue
		}
		if line.intermediate(g) {
			continue
		}
		sum, _, err := s.summary(ctx, g)
		if err != nil {
			return out, err
		}
		if keep, err := narrow.keeps(g, &sum); err != nil || !keep {
			continue
		}
		remove := s.removeAll
		if line.hasChildren(g) {
			remove = func(ctx context.Context, g *group) ([]Removed, error) { return s.untagAll(ctx, g, true) }
		}
		removed, err := remove(ctx, g)
		out = append(out, removed...)
		if err != nil {
			return out, err
		}
	}
	return out, nil
}
