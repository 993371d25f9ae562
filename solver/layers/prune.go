package layers

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// candidate is something Prune may remove. The usage is as it was when it was marked.
type candidate struct {
	usage  Usage
	layer  *layer
	volume *volumeDir
}

// sweepBatch is how many candidates are looked at under one hold of the lock, so that builds go on meanwhile.
const sweepBatch = 16

// Prune removes what nobody holds and o allows, longest unused first, and of what was used together what was built last first. Where there is
// a size to come down to, what was used often stays longer, as BuildKit's prune has it; and what images hold is not counted, as no pruning removes it.
// It tells removed of each as it goes; removed may be nil. When it returns, the space is free. What is taken hold of meanwhile
// stays.
func (s *Store) Prune(ctx context.Context, o PruneOptions, removed func(Usage)) error {
	done, err := s.begin()
	if err != nil {
		return fmt.Errorf("prune: %w", err)
	}
	defer done()
	if err := s.measureVolumes(ctx); err != nil {
		return fmt.Errorf("prune: %w", err)
	}
	// What goes may free what it was made of, so there is another round as long as there was something.
	for more := true; more; {
		if more, err = s.pruneRound(ctx, o, removed); err != nil {
			return fmt.Errorf("prune: %w", err)
		}
	}
	if err := s.trash.drain(ctx); err != nil {
		return fmt.Errorf("prune: delete: %w", err)
	}
	return nil
}

func (s *Store) pruneRound(ctx context.Context, o PruneOptions, removed func(Usage)) (more bool, err error) {
	for batch := range slices.Chunk(s.mark(o), sweepBatch) {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		gone, enough, err := s.sweep(batch, o)
		for _, u := range gone {
			more = true
			if removed != nil {
				removed(u)
			}
		}
		if err != nil || enough {
			return false, err
		}
		if o.MinFree > 0 {
			// Only what is deleted is free.
			if err := s.trash.drain(ctx); err != nil {
				return false, err
			}
		}
	}
	return more, nil
}

// mark lists what may go, in the order in which it should.
func (s *Store) mark(o PruneOptions) []candidate {
	s.mu.Lock()
	var all []candidate
	for _, l := range s.layers {
		if l.free() || o.Everything() && l.retirable() {
			all = append(all, candidate{usage: l.usage(), layer: l})
		}
	}
	for _, k := range s.volumes {
		for _, d := range k.dirs {
			if d.users == 0 {
				all = append(all, candidate{usage: d.usage(), volume: d})
			}
		}
	}
	s.mu.Unlock()
	now := s.now()
	all = slices.DeleteFunc(all, func(c candidate) bool { return !o.allows(c.usage, now) })
	score := func(Usage) float64 { return 0 }
	if o.hasGoal() {
		score = worth(all)
	}
	slices.SortFunc(all, func(a, b candidate) int {
		return cmp.Or(
			cmp.Compare(score(a.usage), score(b.usage)),
			a.usage.LastUsedAt.Truncate(time.Second).Compare(b.usage.LastUsedAt.Truncate(time.Second)),
			cmp.Compare(len(b.usage.Parents), len(a.usage.Parents)),
			b.usage.CreatedAt.Compare(a.usage.CreatedAt),
			cmp.Compare(a.usage.ID, b.usage.ID))
	})
	return all
}

// worth ranks candidates by when and by how often they were used, both from above 0 to 1, and returns the sum of a candidate's two ranks.
func worth(all []candidate) func(Usage) float64 {
	times, counts := map[int64]float64{}, map[int64]float64{}
	for _, c := range all {
		times[c.usage.LastUsedAt.Unix()], counts[int64(c.usage.UsageCount)] = 0, 0
	}
	for _, ranks := range []map[int64]float64{times, counts} {
		for i, v := range slices.Sorted(maps.Keys(ranks)) {
			ranks[v] = float64(i+1) / float64(len(ranks))
		}
	}
	return func(u Usage) float64 { return times[u.LastUsedAt.Unix()] + counts[int64(u.UsageCount)] }
}

// hasGoal says whether there is a size to come down to.
func (o PruneOptions) hasGoal() bool { return o.MaxUsed > 0 || o.Reserved > 0 || o.MinFree > 0 }

// allows says whether the options let u be removed, sizes aside.
func (o PruneOptions) allows(u Usage, now time.Time) bool {
	switch {
	case !o.All && (u.Use == UseInternal || u.Use == UseFrontend):
		return false
	case o.KeepDuration > 0 && now.Sub(u.LastUsedAt) < o.KeepDuration:
		return false
	}
	return o.Filter == nil || o.Filter(u)
}

// enough says whether there is no reason to remove more, given the bytes in use and free.
func (o PruneOptions) enough(used, free int64) bool {
	if o.Reserved > 0 && used <= o.Reserved {
		return true
	}
	if o.MaxUsed <= 0 && o.MinFree <= 0 {
		return false
	}
	return (o.MaxUsed <= 0 || used <= o.MaxUsed) && (o.MinFree <= 0 || free >= o.MinFree)
}

// sweep removes what of a batch is still free, until it is enough.
func (s *Store) sweep(batch []candidate, o PruneOptions) (gone []Usage, enough bool, err error) {
	var fs unix.Statfs_t
	if o.MinFree > 0 {
		if err := unix.Statfs(s.o.Root, &fs); err != nil {
			return nil, false, fmt.Errorf("free space of %s: %w", s.o.Root, err)
		}
	}
	free := int64(fs.Bavail) * int64(fs.Bsize) //nolint:unconvert // their types depend on the architecture
	s.mu.Lock()
	defer s.mu.Unlock()
	var held int64
	if o.hasGoal() {
		held = s.heldByImages()
	}
	for _, c := range batch {
		before := s.used
		if o.enough(before-held, free) {
			return gone, true, nil
		}
		switch {
		case c.layer != nil:
			if c.layer.gone || c.layer.LastUsed.After(c.usage.LastUsedAt) {
				continue
			}
			if o.Everything() && c.layer.retirable() {
				s.retire(c.layer)
				continue
			}
			if !c.layer.free() {
				continue
			}
			c.usage = c.layer.usage()
			s.forget(c.layer)
		case c.volume.gone || c.volume.users > 0:
			continue
		default:
			s.forgetVolume(c.volume)
		}
		free += before - s.used
		gone = append(gone, c.usage)
	}
	return gone, false, nil
}

// heldByImages is how many bytes of layers images hold. It is called under mu.
func (s *Store) heldByImages() (n int64) {
	for _, l := range s.layers {
		if l.holds > 0 {
			n += l.size()
		}
	}
	return n
}

// evictVolumes forgets volumes that nobody uses, longest unused first, until what is used has come down to target. It is called
// under mu.
func (s *Store) evictVolumes(target int64) {
	var free []*volumeDir
	for _, k := range s.volumes {
		for _, d := range k.dirs {
			if d.users == 0 {
				free = append(free, d)
			}
		}
	}
	slices.SortFunc(free, func(a, b *volumeDir) int { return a.rec.LastUsed.Compare(b.rec.LastUsed) })
	for _, d := range free {
		if s.used <= target {
			return
		}
		s.log.Info("evict volume to stay below the limit", "key", d.rec.Key, "size", d.rec.Size)
		s.forgetVolume(d)
	}
}
