package cachestore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/layers"
	bolt "go.etcd.io/bbolt"
)

// ErrClosed is returned by all methods once the store is closed.
var ErrClosed = errors.New("cachestore: closed")

const (
	defaultMaxRecords = 200_000
	// touchAfter is how stale "last used" may get. Writing it at every hit would make reading cost a write.
	touchAfter = time.Hour
)

// Options goes with [New].
type Options struct {
	// Layers is the layer store whose index keeps the cache.
	Layers *layers.Store
	// MaxRecords bounds the number of records; those used least recently go first. 0 is 200,000.
	MaxRecords int
	// Logger takes what the store has to say; nil is silence.
	Logger *slog.Logger
}

// Store is a [solver.Store] over the layer store's index. Writes are gathered and reach the disk a little later; every read
// sees them at once. What a crash takes with it is a miss later, nothing worse.
type Store struct {
	layers *layers.Store
	max    int
	log    *slog.Logger
	rows   *rows
	now    func() time.Time
	enc    *zstd.Encoder
	dec    *zstd.Decoder

	mu sync.Mutex // guards read-modify-write of one row

	sweeping sync.Mutex
}

var _ solver.Store = (*Store)(nil)

// New opens the cache. The caller closes it before the layer store.
func New(ctx context.Context, o Options) (*Store, error) {
	if o.Layers == nil {
		return nil, errors.New("cachestore: a layer store is needed")
	}
	return open(ctx, o, o.Layers.DB())
}

func open(ctx context.Context, o Options, db *bolt.DB) (*Store, error) {
	s := &Store{layers: o.Layers, max: o.MaxRecords, log: o.Logger, now: time.Now}
	if s.max <= 0 {
		s.max = defaultMaxRecords
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if s.enc, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true)); err != nil {
		return nil, fmt.Errorf("cachestore: %w", err)
	}
	if s.dec, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxParts)); err != nil {
		return nil, fmt.Errorf("cachestore: %w", err)
	}
	if s.rows, err = openRows(db, s.log); err != nil {
		s.dec.Close()
		return nil, fmt.Errorf("open cache: %w", err)
	}
	return s, context.Cause(ctx)
}

// Close writes what is still to be written.
func (s *Store) Close() error {
	err := s.rows.close()
	if !errors.Is(err, ErrClosed) {
		s.dec.Close()
	}
	return err
}

// Flush writes what is still to be written and returns when it is on disk.
func (s *Store) Flush(ctx context.Context) error { return s.rows.flush(ctx) }

// Alias implements [solver.Store].
func (s *Store) Alias(_ context.Context, p solver.Promise) (solver.Identity, bool, error) {
	row, ok, err := s.rows.get(aliases, p[:])
	if err != nil || !ok {
		return solver.Identity{}, false, err
	}
	used, val, err := stamped(row)
	if err != nil || len(val) != len(solver.Identity{}) {
		return solver.Identity{}, false, s.damaged(aliases, p[:], err)
	}
	if s.now().Sub(used) > touchAfter {
		err = s.rows.put(aliases, p[:], s.stamp(val))
	}
	return solver.Identity(val), true, err
}

// PutAlias implements [solver.Store].
func (s *Store) PutAlias(_ context.Context, p solver.Promise, i solver.Identity) error {
	return s.rows.put(aliases, p[:], s.stamp(i[:]))
}

// Forget implements [solver.Store]. Aliases and content digests stay: they name what was made, which is still true.
func (s *Store) Forget(_ context.Context, i solver.Identity) error {
	return s.rows.put(records, i[:], nil)
}

// Content implements [solver.Store].
func (s *Store) Content(_ context.Context, i solver.Identity, output int, selector string) (digest.Digest, bool, error) {
	all, err := s.contents(i)
	if err != nil {
		return "", false, err
	}
	d, ok := all[contentKey(output, selector)]
	return d, ok, nil
}

// PutContent implements [solver.Store].
func (s *Store) PutContent(_ context.Context, i solver.Identity, output int, selector string, d digest.Digest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	all, err := s.contents(i)
	if err != nil {
		return err
	}
	key := contentKey(output, selector)
	if all[key] == d {
		return nil
	}
	return s.rows.put(contents, i[:], s.stamp(encodeContents(all, key, d)))
}

// damaged drops a row that cannot be read. That is a miss; the error says so once.
func (s *Store) damaged(b bucket, key []byte, cause error) error {
	s.log.Warn("cache row is damaged, dropping it", "bucket", b.String(), "key", fmt.Sprintf("%x", key), "err", cause)
	return s.rows.put(b, key, nil)
}

// stamp puts the time of use before a value.
func (s *Store) stamp(val []byte) []byte {
	out := make([]byte, 8, 8+len(val))
	binary.BigEndian.PutUint64(out, uint64(s.now().Unix()))
	return append(out, val...)
}

// stamped takes a row apart. val is part of row.
func stamped(row []byte) (used time.Time, val []byte, err error) {
	if len(row) < 8 {
		return time.Time{}, nil, fmt.Errorf("row of %d bytes", len(row))
	}
	return time.Unix(int64(binary.BigEndian.Uint64(row)), 0), row[8:], nil
}
