// Package memstore is a cache that lives in memory: for tests, and for engines that keep nothing.
package memstore

import (
	"context"
	"errors"
	"maps"
	"sync"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver"
)

// Store is a [solver.Store] in memory. It holds clones of the results it is given, until Close.
type Store struct {
	mu       sync.Mutex // guards what follows
	aliases  map[solver.Promise]solver.Identity
	records  map[solver.Identity]record
	contents map[solver.Identity]map[contentKey]digest.Digest
	closed   bool
}

type record struct {
	meta    solver.Record
	results []solver.Result
}

type contentKey struct {
	output   int
	selector string
}

var _ solver.Store = (*Store)(nil)

// ErrClosed is returned by a store that was closed.
var ErrClosed = errors.New("cache is closed")

// New returns an empty store. The caller closes it.
func New() *Store {
	return &Store{
		aliases:  map[solver.Promise]solver.Identity{},
		records:  map[solver.Identity]record{},
		contents: map[solver.Identity]map[contentKey]digest.Digest{},
	}
}

// Alias looks a promise up.
func (s *Store) Alias(_ context.Context, p solver.Promise) (solver.Identity, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, ok := s.aliases[p]
	return id, ok, nil
}

// PutAlias remembers that p is named i.
func (s *Store) PutAlias(_ context.Context, p solver.Promise, i solver.Identity) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	s.aliases[p] = i
	return nil
}

// Results returns clones of what is stored under i.
func (s *Store) Results(_ context.Context, i solver.Identity) ([]solver.Result, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.records[i]
	if !ok {
		return nil, false, nil
	}
	return cloneAll(r.results), true, nil
}

// PutResults stores clones of results.
func (s *Store) PutResults(_ context.Context, i solver.Identity, meta solver.Record, results []solver.Result) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	old := s.records[i]
	s.records[i] = record{meta, cloneAll(results)}
	delete(s.contents, i)
	s.mu.Unlock()
	return releaseAll(old.results)
}

// Forget drops the record of i. What is known of its names and contents stays: it still names what it named.
func (s *Store) Forget(_ context.Context, i solver.Identity) error {
	s.mu.Lock()
	old := s.records[i]
	delete(s.records, i)
	s.mu.Unlock()
	return releaseAll(old.results)
}

// Content looks a digest up.
func (s *Store) Content(_ context.Context, i solver.Identity, output int, selector string) (digest.Digest, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.contents[i][contentKey{output, selector}]
	return d, ok, nil
}

// PutContent remembers a digest.
func (s *Store) PutContent(_ context.Context, i solver.Identity, output int, selector string, d digest.Digest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if s.contents[i] == nil {
		s.contents[i] = map[contentKey]digest.Digest{}
	}
	s.contents[i][contentKey{output, selector}] = d
	return nil
}

// Records returns what is kept beside the results, in no order.
func (s *Store) Records() []solver.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]solver.Record, 0, len(s.records))
	for _, r := range s.records {
		all = append(all, r.meta)
	}
	return all
}

// Prune drops the records for which drop is true, as a collector would: names and content digests stay.
func (s *Store) Prune(drop func(solver.Record) bool) error {
	s.mu.Lock()
	var gone []solver.Result
	maps.DeleteFunc(s.records, func(_ solver.Identity, r record) bool {
		if !drop(r.meta) {
			return false
		}
		gone = append(gone, r.results...)
		return true
	})
	s.mu.Unlock()
	return releaseAll(gone)
}

// Close gives all results back. Look-ups then find nothing, and nothing is taken in.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	var gone []solver.Result
	for _, r := range s.records {
		gone = append(gone, r.results...)
	}
	clear(s.records)
	clear(s.aliases)
	clear(s.contents)
	s.mu.Unlock()
	return releaseAll(gone)
}

func cloneAll(results []solver.Result) []solver.Result {
	all := make([]solver.Result, len(results))
	for i, r := range results {
		if r != nil {
			all[i] = r.Clone()
		}
	}
	return all
}

func releaseAll(results []solver.Result) error {
	var errs []error
	for _, r := range results {
		if r != nil {
			errs = append(errs, r.Release())
		}
	}
	return errors.Join(errs...)
}
