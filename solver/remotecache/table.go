package remotecache

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver/layers"
)

// Table knows the places that the builds of this moment have opened, by their sessions: a blob is fetched with the access of those who
// wait for it, and of nobody else. Its zero value is ready. It is safe for concurrent use.
type Table struct {
	mu     sync.Mutex
	places map[tableKey][]Place
}

type tableKey struct{ session, location string }

// sessionsOf names the owners of a place; a build without a session shares with others of its kind.
func sessionsOf(g *session.Group) []string {
	if ids := g.IDs(); len(ids) > 0 {
		return ids
	}
	return []string{""}
}

// Add makes a place known to the builds of a group of sessions, until remove is called.
func (t *Table) Add(g *session.Group, p Place) (remove func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.places == nil {
		t.places = map[tableKey][]Place{}
	}
	for _, id := range sessionsOf(g) {
		k := tableKey{id, p.Location()}
		t.places[k] = append(t.places[k], p)
	}
	return func() { t.remove(g, p) }
}

func (t *Table) remove(g *session.Group, p Place) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range sessionsOf(g) {
		k := tableKey{id, p.Location()}
		if i := slices.Index(t.places[k], p); i >= 0 {
			t.places[k] = slices.Delete(t.places[k], i, i+1)
		}
		if len(t.places[k]) == 0 {
			delete(t.places, k)
		}
	}
}

func (t *Table) find(g *session.Group, location string) Place {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range sessionsOf(g) {
		if list := t.places[tableKey{id, location}]; len(list) > 0 {
			return list[0]
		}
	}
	return nil
}

// Fetchers returns what makes fetchers of blobs in caches; those of everything else come from next. A blob in a cache that nobody who
// waits has opened is layers.ErrNotFound: what it is part of is made again.
func (t *Table) Fetchers(next func(func() *session.Group) layers.Fetcher) func(func() *session.Group) layers.Fetcher {
	return func(sessions func() *session.Group) layers.Fetcher {
		return &fetcher{table: t, sessions: sessions, next: next(sessions)}
	}
}

type fetcher struct {
	table    *Table
	sessions func() *session.Group
	next     layers.Fetcher
}

// Fetch implements [layers.Fetcher].
func (f *fetcher) Fetch(ctx context.Context, b layers.RemoteBlob) (io.ReadCloser, error) {
	if !IsLocation(b.Ref) {
		return f.next.Fetch(ctx, b)
	}
	if b.Ref == absentLocation {
		return nil, fmt.Errorf("the cache has only another output of the step: %w", errGone)
	}
	p := f.table.find(f.sessions(), b.Ref)
	if p == nil {
		return nil, fmt.Errorf("blob %s is in the cache %s, which this build does not import: %w", b.Descriptor.Digest, b.Ref, errGone)
	}
	r, err := p.Open(ctx, b.Descriptor)
	if err != nil {
		return nil, gone(ctx, err)
	}
	return fragile{ctx, r}, nil
}

// gone makes of whatever is wrong with a cache that its blob cannot be had: the build then does the work by itself.
func gone(ctx context.Context, err error) error {
	if ctx.Err() != nil || err == io.EOF { //nolint:errorlint // readers compare it
		return err
	}
	return fmt.Errorf("%w: %w", err, errGone)
}

// fragile reads from a cache.
type fragile struct {
	ctx context.Context
	io.ReadCloser
}

func (f fragile) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if err != nil {
		err = gone(f.ctx, err)
	}
	return n, err
}

// locations begins the Ref of blobs that are fetched through a [Table].
const locations = "cache+"

// NewLocation makes the location of a place that is no plain registry reference. what tells it from others of its kind, and is the
// same on every host.
func NewLocation(kind, what string) string { return locations + kind + "://" + what }

// IsLocation tells whether a Ref was made by NewLocation.
func IsLocation(ref string) bool { return strings.HasPrefix(ref, locations) }
