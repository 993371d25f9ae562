package layers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/flight"
	"github.com/slipwaybuild/slipway/solver/keylock"
	"github.com/slipwaybuild/slipway/solver/layers/compose"
	bolt "go.etcd.io/bbolt"
)

// Options goes with [Open].
type Options struct {
	// Root is the directory the store owns. It should not lie on overlayfs or tmpfs.
	Root string
	// Realisation is "erofs", "unpacked" or "" for the best the host can do.
	Realisation string
	// Limit is the ceiling on disk in bytes; 0 is none.
	Limit int64
	// MaxLayer is how many bytes a fetched layer may unpack to; 0 is 1 TiB.
	MaxLayer int64
	// MaxRatio is how many times its compressed size a fetched layer of more than 1 GiB may have; 0 is 200.
	MaxRatio int64
	// Logger takes what the store has to say; nil is silence.
	Logger *slog.Logger
}

// Store is the layer store. Its methods are safe for concurrent use.
type Store struct {
	o    Options
	at   layout
	log  *slog.Logger
	now  func() time.Time
	boot string
	lock *os.File
	db   *bolt.DB

	journal *journal
	trash   *trash
	caps    compose.Caps
	erofs   bool
	mounts  *handles[digest.Digest, int]           // detached mounts of blobs
	views   *handles[digest.Digest, *openBlob]     // blobs read in user space
	writers keylock.Locks[digest.Digest]           // who writes the blob of a diffID
	fetches *flight.Group[digest.Digest, struct{}] // downloads
	packs   *flight.Group[ID, struct{}]            // dir to blob
	spreads *flight.Group[digest.Digest, struct{}] // blob to directory
	mending keylock.Locks[string]
	slots   chan struct{} // of downloads at a time

	// ctx ends when the store is closed; work counts what runs under it.
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup

	// mu guards the in-memory index and all that follows. Look-up and pin happen under one hold of it, and so does every
	// change of what lies under a final name, so the index and the disk agree whenever it is free. It is never held while
	// waiting for the disk, the network or another lock, renames excepted.
	mu       sync.Mutex
	closed   bool
	layers   map[ID]*layer
	holds    map[string][]*layer
	volumes  map[string]*volumeKey
	chains   map[string]*chain
	refs     map[*Ref]struct{}
	uppers   map[*Upper]struct{}
	rootfs   map[*Rootfs]struct{}
	vols     map[*Volume]struct{}
	used     int64 // by layers, volumes and chains
	reserved int64 // promised to those who write now
	unsynced map[*layer]struct{}
	lostAt   map[place]struct{} // where blobs were found missing
}

// Parallel transfers, and how many idle blobs are kept open.
const (
	transfers  = 4
	idleMounts = 256
	idleViews  = 64
)

// Open opens the store under o.Root and cleans up what a crash left behind. A root can be open once at a time: [ErrInUse].
func Open(ctx context.Context, o Options) (*Store, error) {
	s, err := newStore(o)
	if err != nil {
		return nil, err
	}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open layer store %s: %w", o.Root, err), s.abandon())
	}
	return s, nil
}

// Close ends the store. What is still under way is cancelled. It returns an error naming every ref, root file system, upper
// or volume that was not given back; the mounts are ended all the same.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	err := s.endFlights()
	s.work.Wait()
	return errors.Join(err, s.leaks(), s.shutdown())
}

// Realisation says how layers are realised on this host: "erofs" or "unpacked".
func (s *Store) Realisation() string {
	if s.erofs {
		return Erofs
	}
	return Unpacked
}

// The realisations.
const (
	Erofs    = "erofs"    // blobs are mounted as they lie
	Unpacked = "unpacked" // blobs are unpacked once each when they are first mounted
)

// DB is the store's one index. Packages above keep their own buckets in it; those whose names begin with "layers" are the
// store's own. It is closed with the store.
func (s *Store) DB() *bolt.DB { return s.db }

// save notes that the record of l changed. Urgent changes are on their way to the disk at once. It is called under mu.
func (s *Store) save(l *layer, urgent bool) {
	if !l.gone && l.Kind != Lent {
		s.journal.put(bucketLayers, string(l.ID), mustJSON(l.record), urgent)
	}
}

// begin lets work run under the store's context; done must be called when it ends.
func (s *Store) begin() (done func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	s.work.Add(1)
	return s.work.Done, nil
}

func (s *Store) leaks() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	inner := map[*Ref]bool{}
	for m := range s.rootfs {
		inner[m.ref] = true
		errs = append(errs, fmt.Errorf("root file system %s, taken at %s", m.path, m.site))
	}
	for r := range s.refs {
		if !inner[r] {
			errs = append(errs, fmt.Errorf("ref of %v, taken at %s", r.IDs(), r.site))
		}
	}
	for u := range s.uppers {
		errs = append(errs, fmt.Errorf("upper %s, taken at %s", u.name, u.site))
	}
	for v := range s.vols {
		errs = append(errs, fmt.Errorf("volume %q, taken at %s", v.dir.rec.Key, v.site))
	}
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("layer store closed with %d things not given back: %w", len(errs), errors.Join(errs...))
}
