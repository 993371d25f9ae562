package remotecache

import (
	"context"
	"errors"
	"fmt"
	"sync"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/layers"
)

// Import is one cache that a build imports. It is loaded when it is first asked, once.
type Import struct {
	layers *layers.Store
	open   func(ctx context.Context) (Place, []*Cache, error)

	loading sync.Mutex // held while it is loaded
	loaded  bool
	place   Place
	books   []*book

	mu   sync.Mutex
	seen map[digest.Digest]*sighting // of blobs
}

// book is a cache that can be looked things up in.
type book struct {
	*Cache
	entries map[solver.Identity]int
	aliases map[solver.Promise]solver.Identity
}

func newBook(c *Cache) *book {
	b := &book{Cache: c, entries: map[solver.Identity]int{}, aliases: map[solver.Promise]solver.Identity{}}
	for i, e := range c.Entries {
		b.entries[e.Identity] = i
		for _, p := range e.Promises {
			if _, ok := b.aliases[p]; !ok {
				b.aliases[p] = e.Identity
			}
		}
	}
	return b
}

// NewImport returns an import that open reads, when something is first looked up. open tells viewers what is wrong, if anything; an
// import that cannot be read is an empty one, unless its context ended.
func NewImport(store *layers.Store, open func(ctx context.Context) (Place, []*Cache, error)) *Import {
	return &Import{layers: store, open: open, seen: map[digest.Digest]*sighting{}}
}

// load returns the caches.
func (im *Import) load(ctx context.Context) ([]*book, error) {
	im.loading.Lock()
	defer im.loading.Unlock()
	if im.loaded {
		return im.books, nil
	}
	place, caches, err := im.open(ctx)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	im.loaded = true
	if err != nil {
		return nil, nil
	}
	im.place = place
	for _, c := range caches {
		im.books = append(im.books, newBook(c))
	}
	return im.books, nil
}

func (im *Import) alias(ctx context.Context, p solver.Promise) (solver.Identity, bool, error) {
	books, err := im.load(ctx)
	for _, b := range books {
		if id, ok := b.aliases[p]; ok {
			return id, true, nil
		}
	}
	return solver.Identity{}, false, err
}

func (im *Import) content(ctx context.Context, i solver.Identity, output int, selector string) (digest.Digest, bool, error) {
	books, err := im.load(ctx)
	for _, b := range books {
		n, ok := b.entries[i]
		if !ok {
			continue
		}
		for _, c := range b.Entries[n].Contents {
			if c.Output == output && c.Selector == selector {
				return c.Digest, true, nil
			}
		}
	}
	return "", false, err
}

func (im *Import) results(ctx context.Context, i solver.Identity) (*solver.Imported, bool, error) {
	books, err := im.load(ctx)
	if err != nil {
		return nil, false, err
	}
	for _, partial := range []bool{false, true} {
		for _, b := range books {
			n, ok := b.entries[i]
			if !ok || b.Entries[n].partial() != partial {
				continue
			}
			got, ok, err := im.take(ctx, b, b.Entries[n])
			if ok || err != nil {
				return got, ok, err
			}
		}
	}
	return nil, false, nil
}

// take takes hold of an entry's results, if all their blobs are where they should be.
func (im *Import) take(ctx context.Context, b *book, e Entry) (_ *solver.Imported, ok bool, err error) {
	if there, err := im.sees(ctx, b, e); err != nil || !there {
		return nil, false, err
	}
	imp := &solver.Imported{Record: solver.Record{Step: e.Step, Name: e.Name}, Contents: e.Contents}
	if len(e.Promises) > 0 {
		imp.Record.Promise = e.Promises[0]
	}
	defer func() {
		if !ok {
			err = errors.Join(err, release(imp.Results))
		}
	}()
	for n := range e.Outputs {
		r, err := im.hold(ctx, b, e, n)
		if err != nil {
			return nil, false, fmt.Errorf("take hold of imported layers: %w", err)
		}
		imp.Results = append(imp.Results, r)
	}
	return imp, true, nil
}

func release(results []solver.Result) error {
	var errs []error
	for _, r := range results {
		if r != nil {
			errs = append(errs, r.Release())
		}
	}
	return errors.Join(errs...)
}
