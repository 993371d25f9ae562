package history

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// Errors callers branch on.
var (
	ErrNotFound = errors.New("no such build")
	ErrRunning  = errors.New("a build with this ref is running")
	ErrFilter   = errors.New("invalid history filter")
)

// What is kept unless the options say otherwise.
const (
	UsualEntries = 50
	UsualAge     = 48 * time.Hour
)

// lateSpans is how long after the end of a build a client may hand over spans of it.
const lateSpans = 3 * time.Second

// unrecorded is how many journals of builds without a record stay, for viewers that come late to a short build.
const unrecorded = 50

// Options goes with [Open].
type Options struct {
	// Root is the directory the store owns.
	Root string
	// MaxEntries and MaxAge: a record is forgotten when it is neither among the MaxEntries that ended last nor younger than
	// MaxAge. Pinned records stay and are not counted. With MaxEntries 0 and MaxAge 0 nothing is recorded.
	MaxEntries int
	MaxAge     time.Duration
	// Logger takes what the store has to say; nil is silence.
	Logger *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Store is the history. All methods are safe for concurrent use.
type Store struct {
	o     Options
	log   *slog.Logger
	db    *database
	blobs *blobs
	work  sync.WaitGroup // what goes on behind the callers' backs

	mu      sync.Mutex
	closed  bool
	closing chan struct{} // closed when closed is set
	// settling says that somebody is about to bring notes to disk.
	settling bool
	running  map[string]*Build
	ended    map[string]*entry
	loose    []looseEnd             // of builds without a record, oldest first
	late     map[string]*finalizer  // builds that ended and still take spans
	readers  map[string]*readerHold // who listens to one ref
	subs     map[*subscription]struct{}
	arrived  chan struct{} // closed and replaced whenever a build begins
	expiry   *time.Timer   // when the next record is old; nil for none
}

// entry is what is kept in memory of a record.
type entry struct {
	completed time.Time
	pinned    bool
	blobs     []string
}

// looseEnd is a journal without a record.
type looseEnd struct {
	ref     string
	journal *progress.Journal
}

// Open opens the history under o.Root. Builds that a killed daemon left running become records that say so. The caller closes it.
func Open(ctx context.Context, o Options) (_ *Store, err error) {
	s := &Store{
		o: o, log: o.Logger, running: map[string]*Build{}, ended: map[string]*entry{}, late: map[string]*finalizer{},
		readers: map[string]*readerHold{}, subs: map[*subscription]struct{}{}, arrived: make(chan struct{}), closing: make(chan struct{}),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.o.MaxEntries, s.o.MaxAge = max(o.MaxEntries, 0), max(o.MaxAge, 0)
	if s.o.Now == nil {
		s.o.Now = time.Now
	}
	for _, dir := range []string{s.journalDir(), s.markDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("open build history: %w", err)
		}
	}
	if s.blobs, err = openBlobs(filepath.Join(o.Root, "blobs")); err != nil {
		return nil, fmt.Errorf("open build history: %w", err)
	}
	var bad []error
	if s.db, bad, err = openDatabase(filepath.Join(o.Root, "history.db"), filepath.Join(o.Root, "notes")); err != nil {
		return nil, fmt.Errorf("open build history: %w", err)
	}
	for _, err := range bad {
		s.log.WarnContext(ctx, "forget a build whose record cannot be read", "error", err)
	}
	if err := s.recover(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open build history: %w", err), s.Close())
	}
	s.retain()
	return s, nil
}

// Close ends the history. Builds that run go on without it: what they write is dropped, and the next Open calls them killed.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.closing)
	if s.expiry != nil {
		s.expiry.Stop()
	}
	for _, f := range s.late {
		f.trigger()
	}
	for sub := range s.subs {
		sub.end()
	}
	var errs []error
	for _, b := range s.running {
		errs = append(errs, b.journal.Close())
	}
	s.mu.Unlock()
	s.work.Wait()
	return errors.Join(append(errs, s.settle(), s.db.close())...)
}

// Active counts the builds that run.
func (s *Store) Active() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.running)
}

// Record returns the record of a build, also of one that runs; it is the caller's.
func (s *Store) Record(ref string) (*controlapi.BuildHistoryRecord, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.running[ref]; b != nil && !b.start.Unrecorded {
		return b.snapshot(), nil
	}
	return s.db.record(ref)
}

// recording tells whether builds are recorded at all.
func (s *Store) recording() bool { return s.o.MaxEntries > 0 || s.o.MaxAge > 0 }
