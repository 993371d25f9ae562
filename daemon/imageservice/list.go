package imageservice

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
)

// Summary is an image in a list.
type Summary struct {
	ID digest.Digest
	// Tags are the names with tags, Digests those by which a registry knows the image; as people write them.
	Tags, Digests []string
	Created       time.Time
	// Size is of all that the image consists of here, in bytes. Shared is the part of it that other images have, too.
	Size, Shared int64
	Labels       map[string]string
}

// ListOptions narrow a list. Zero values narrow nothing.
type ListOptions struct {
	// Intermediate lists also what the classic builder made on the way and has no name.
	Intermediate bool
	// Dangling chooses images without, or with, a name.
	Dangling *bool
	// Labels are "key" or "key=value", of which all must be there; of NotLabels none may be.
	Labels, NotLabels []string
	// References are patterns of names, one of which must match.
	References []string
	// Before and Since name images; Until is a time. What is listed is older, newer, older.
	Before, Since string
	Until         time.Time
}

// List lists images, newest first.
func (s *Service) List(ctx context.Context, o ListOptions) ([]Summary, error) {
	list, err := s.groups(ctx)
	if err != nil {
		return nil, err
	}
	before, since, err := s.bounds(ctx, o)
	if err != nil {
		return nil, err
	}
	line, err := s.lineage(ctx, list)
	if err != nil {
		return nil, err
	}
	users := map[digest.Digest]int{}
	sizes := map[digest.Digest]map[digest.Digest]int64{}
	var out []Summary
	for _, g := range list {
		sum, c, err := s.summary(ctx, g)
		if err != nil {
			return nil, err
		}
		if c != nil {
			sizes[sum.ID] = c.sizes()
		}
		for d := range sizes[sum.ID] {
			users[d]++
		}
		keep, err := o.keeps(g, &sum)
		if err != nil {
			return nil, err
		}
		if !o.Intermediate && line.intermediate(g) {
			continue
		}
		if keep && (before.IsZero() || sum.Created.Before(before)) && (since.IsZero() || sum.Created.After(since)) {
			out = append(out, sum)
		}
	}
	for i := range out {
		for d, n := range sizes[out[i].ID] {
			if users[d] > 1 {
				out[i].Shared += n
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Summary) int { return b.Created.Compare(a.Created) })
	return out, nil
}

// summary describes an image. contents is nil if there is nothing of it but the name.
func (s *Service) summary(ctx context.Context, g *group) (Summary, *contents, error) {
	sum := Summary{ID: g.id()}
	sum.Tags, sum.Digests = g.familiar()
	c, err := s.read(ctx, g.target)
	if errors.Is(err, errdefs.ErrNotFound) {
		return sum, nil, nil
	}
	if err != nil {
		// One that cannot be read must not hide the others, or nobody could remove it.
		s.log.WarnContext(ctx, "image cannot be read", "id", g.id(), "error", err)
		return sum, nil, nil
	}
	sum.Size = c.size()
	if one := s.single(c); one != nil {
		sum.Labels = one.Parsed.Config.Labels
		if one.Parsed.Created != nil {
			sum.Created = *one.Parsed.Created
		}
	}
	return sum, c, nil
}

// bounds are the times of the images that a list is before or since.
func (s *Service) bounds(ctx context.Context, o ListOptions) (before, since time.Time, err error) {
	if before, err = s.createdAt(ctx, o.Before); err != nil {
		return before, since, err
	}
	since, err = s.createdAt(ctx, o.Since)
	return before, since, err
}

// createdAt is when an image was made; zero for no image.
func (s *Service) createdAt(ctx context.Context, ref string) (time.Time, error) {
	if ref == "" {
		return time.Time{}, nil
	}
	g, _, err := s.find(ctx, ref)
	if err != nil {
		return time.Time{}, err
	}
	sum, _, err := s.summary(ctx, g)
	return sum.Created, err
}

// keeps applies all but before and since. A reference that does not match takes its names off the summary.
func (o ListOptions) keeps(g *group, sum *Summary) (bool, error) {
	if o.Dangling != nil && *o.Dangling != g.dangling() {
		return false, nil
	}
	if !o.Until.IsZero() && !sum.Created.Before(o.Until) {
		return false, nil
	}
	for _, l := range o.Labels {
		if !hasLabel(sum.Labels, l) {
			return false, nil
		}
	}
	for _, l := range o.NotLabels {
		if hasLabel(sum.Labels, l) {
			return false, nil
		}
	}
	if len(o.References) == 0 {
		return true, nil
	}
	var err error
	if sum.Tags, err = matching(sum.Tags, o.References); err != nil {
		return false, err
	}
	if sum.Digests, err = matching(sum.Digests, o.References); err != nil {
		return false, err
	}
	return len(sum.Tags)+len(sum.Digests) > 0, nil
}

func hasLabel(labels map[string]string, want string) bool {
	key, value, valued := strings.Cut(want, "=")
	got, ok := labels[key]
	return ok && (!valued || got == value)
}

// matching keeps the names that match one of the patterns.
func matching(names, patterns []string) (out []string, err error) {
	for _, name := range names {
		named, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			continue
		}
		for _, p := range patterns {
			ok, err := reference.FamiliarMatch(p, named)
			if err != nil {
				return nil, invalid("invalid reference filter %q: %w", p, err)
			}
			if ok {
				out = append(out, name)
				break
			}
		}
	}
	return out, nil
}

// DiskUsage lists all images and the bytes of what they consist of, each counted once.
func (s *Service) DiskUsage(ctx context.Context) (list []Summary, total int64, err error) {
	if list, err = s.List(ctx, ListOptions{}); err != nil {
		return nil, 0, err
	}
	groups, err := s.groups(ctx)
	if err != nil {
		return nil, 0, err
	}
	all := map[digest.Digest]int64{}
	for _, g := range groups {
		c, err := s.read(ctx, g.target)
		if err != nil {
			continue // counts as nothing in the list, too
		}
		for d, n := range c.sizes() {
			all[d] = n
		}
	}
	for _, n := range all {
		total += n
	}
	return list, total, nil
}
