package remotecache

import (
	"context"
	"errors"
	"slices"
	"sync"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver"
)

// Imports are the caches that one build imports, asked in the order they were added. Its zero value is ready. It is safe for
// concurrent use.
type Imports struct {
	mu   sync.Mutex
	keys []string
	list []*Import
}

var _ solver.Imports = (*Imports)(nil)

// Add adds an import, unless one with the same key is there. What was looked up before is not looked up again.
func (s *Imports) Add(key string, make func() *Import) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Contains(s.keys, key) {
		return
	}
	s.keys = append(s.keys, key)
	s.list = append(s.list, make())
}

func (s *Imports) all() []*Import {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list)
}

// first asks the imports in order. The faults of some do not hide what another has.
func first[T any](s *Imports, ask func(*Import) (T, bool, error)) (T, bool, error) {
	var errs []error
	for _, im := range s.all() {
		v, ok, err := ask(im)
		if ok {
			return v, true, nil
		}
		errs = append(errs, err)
	}
	var none T
	return none, false, errors.Join(errs...)
}

// Alias implements [solver.Imports].
func (s *Imports) Alias(ctx context.Context, p solver.Promise) (solver.Identity, bool, error) {
	return first(s, func(im *Import) (solver.Identity, bool, error) { return im.alias(ctx, p) })
}

// Results implements [solver.Imports].
func (s *Imports) Results(ctx context.Context, i solver.Identity) (*solver.Imported, bool, error) {
	return first(s, func(im *Import) (*solver.Imported, bool, error) { return im.results(ctx, i) })
}

// Content implements [solver.Imports].
func (s *Imports) Content(ctx context.Context, i solver.Identity, output int, selector string) (digest.Digest, bool, error) {
	return first(s, func(im *Import) (digest.Digest, bool, error) { return im.content(ctx, i, output, selector) })
}
