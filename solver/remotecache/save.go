package remotecache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver"
	"golang.org/x/sync/errgroup"
)

const (
	// saves is how often an export tries to get its word in, when others write under the same name at the same time.
	saves = 8
	// refresh is how stale "last used" may get, so that an export that brings nothing new writes nothing.
	refresh = 24 * time.Hour
)

var errOverwritten = errors.New("others keep writing under the same name")

// save puts mine into the cache at the target. Stores like these know no transactions: after writing it looks whether what it wrote is
// still there, and begins anew if somebody who began before has replaced it since.
func (r *export) save(ctx context.Context, mine *Cache) (*ocispecs.Descriptor, error) {
	unlock, err := r.x.turns.Lock(ctx, r.Target.Location())
	if err != nil {
		return nil, err
	}
	defer unlock()
	if !r.Merge {
		mine.Shrink()
		mine.sort()
		return r.Target.Save(ctx, mine, r.note)
	}
	for range saves {
		merged, err := r.merge(ctx, mine)
		if err != nil {
			return nil, err
		}
		d, err := r.Target.Save(ctx, merged, r.note)
		if err != nil {
			return nil, err
		}
		now, err := r.load(ctx)
		if err != nil {
			return nil, fmt.Errorf("read what was written to %s: %w", r.Target.Title(), err)
		}
		// What was left out for being too much is not missed.
		if now != nil && (now.has(merged) || len(merged.Entries) >= maxEntries) {
			return d, nil
		}
	}
	return nil, fmt.Errorf("write the cache to %s: %w", r.Target.Title(), errOverwritten)
}

// merge reads what is at the target and adds mine.
func (r *export) merge(ctx context.Context, mine *Cache) (*Cache, error) {
	old, err := r.load(ctx)
	if err != nil {
		return nil, fmt.Errorf("read what is at %s: %w", r.Target.Title(), err)
	}
	merged := mine.clone()
	if old != nil {
		gone, err := r.gone(ctx, mine, old)
		if err != nil {
			return nil, err
		}
		if old, err = r.withoutLostMounts(ctx, mine, old); err != nil {
			return nil, err
		}
		merged.keepFresh(old, r.x.now())
		merged.Merge(old, func(l Layer) bool { return gone[l.Descriptor.Digest] })
	}
	merged.Shrink()
	merged.sort()
	return merged, nil
}

// gone looks which layers of old are not at the target any more.
func (r *export) gone(ctx context.Context, mine, old *Cache) (map[digest.Digest]bool, error) {
	here := map[digest.Digest]bool{}
	for _, l := range mine.Layers {
		here[l.Descriptor.Digest] = true
	}
	var mu sync.Mutex
	gone := map[digest.Digest]bool{}
	eg, egCtx := errgroup.WithContext(ctx)
	eg.SetLimit(looks)
	for _, l := range old.Layers {
		if here[l.Descriptor.Digest] {
			continue
		}
		eg.Go(func() error {
			there, err := r.Target.Has(egCtx, l.Descriptor)
			mu.Lock()
			defer mu.Unlock()
			gone[l.Descriptor.Digest] = !there
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return nil, fmt.Errorf("look for the layers of %s: %w", r.Target.Title(), err)
	}
	return gone, nil
}

// clone copies what merging changes.
func (c *Cache) clone() *Cache {
	return &Cache{Layers: append([]Layer(nil), c.Layers...), Entries: append([]Entry(nil), c.Entries...), Mounts: slices.Clone(c.Mounts), Foreign: c.Foreign}
}

// keepFresh takes over what is told of entries that were written lately. Of clients each has step ids of its own.
func (c *Cache) keepFresh(old *Cache, now time.Time) {
	fresh := map[solver.Identity]Entry{}
	for _, e := range old.Entries {
		if now.Sub(e.Used) < refresh {
			fresh[e.Identity] = e
		}
	}
	for i := range c.Entries {
		e := &c.Entries[i]
		if f, ok := fresh[e.Identity]; ok {
			e.Used, e.Step, e.Name = f.Used, f.Step, f.Name
		}
	}
}
