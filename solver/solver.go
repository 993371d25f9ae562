package solver

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"

	"github.com/slipwaybuild/slipway/solver/flight"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// Options are what a solver needs.
type Options struct {
	// Store is the cache. It must outlive the solver.
	Store Store
	// Logger hears of faults that fail no build. May be nil.
	Logger *slog.Logger
	// TempDir is where output that is too long for memory is kept while a step runs; empty is the system's.
	TempDir string
}

// Solver is where builds meet: it owns the flights they share. All methods are safe for concurrent use.
type Solver struct {
	store   Store
	log     *slog.Logger
	tempDir string

	aliases  *flight.Group[Promise, aliasAnswer]
	lookups  *flight.Group[Identity, lookupAnswer]
	contents *flight.Group[contentKey, contentAnswer]
	runs     *flight.Group[runKey, *outcome]

	losses losses

	mu     sync.Mutex          // guards what follows
	builds map[*Build]struct{} // open ones
	closed bool
}

// New returns a solver without builds. It is closed by Close.
func New(opts Options) *Solver {
	log := opts.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Solver{store: opts.Store, log: log, tempDir: opts.TempDir, builds: map[*Build]struct{}{}}
	ctx := context.Background() // the flights' own: nothing of a client is in it
	s.aliases = flight.New[Promise](ctx, flight.Options[aliasAnswer]{})
	s.lookups = flight.New[Identity](ctx, flight.Options[lookupAnswer]{
		Clone:   func(a lookupAnswer) lookupAnswer { a.out.retain(); return a },
		Release: func(a lookupAnswer) { s.release(a.out) },
	})
	s.contents = flight.New[contentKey](ctx, flight.Options[contentAnswer]{})
	s.runs = flight.New[runKey](ctx, flight.Options[*outcome]{
		Clone:   func(o *outcome) *outcome { o.retain(); return o },
		Release: s.release,
	})
	return s
}

// BuildOptions are what tells one build from another.
type BuildOptions struct {
	// ID names the build in logs.
	ID string
	// Lender is what ops may borrow while this build waits for them, see [Call.Lenders]. It must be comparable. May be nil.
	Lender any
	// Imports are caches that this build reads beside the solver's. They must outlive the build. May be nil.
	Imports Imports
	// Sink takes the build's story. It must take events until the build is closed. Nil discards.
	Sink progress.Sink
}

// NewBuild opens a build. The caller closes it. On a closed solver everything the build is asked for fails with [ErrClosed].
func (s *Solver) NewBuild(opts BuildOptions) *Build {
	if opts.Sink == nil {
		opts.Sink = progress.Discard
	}
	b := newBuild(s, opts, rand.Text())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		b.shut()
		return b
	}
	s.builds[b] = struct{}{}
	return b
}

// Close closes the builds that are open, cancels what still runs and waits until all of it has ended, or until ctx ends.
func (s *Solver) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	open := make([]*Build, 0, len(s.builds))
	for b := range s.builds {
		open = append(open, b)
	}
	s.mu.Unlock()

	// Flights first: a build that is being closed waits for its own questions, which wait for flights.
	err := errors.Join(s.runs.Close(ctx), s.contents.Close(ctx), s.lookups.Close(ctx), s.aliases.Close(ctx))
	if err != nil {
		return err
	}
	for _, b := range open {
		err = errors.Join(err, b.Close())
	}
	return err
}

// forgetBuild takes a closed build off the list.
func (s *Solver) forgetBuild(b *Build) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.builds, b)
}

// release gives one hold on o back where nobody could be told of an error.
func (s *Solver) release(o *outcome) {
	if err := o.release(); err != nil {
		s.log.Error("release result", "identity", o.identity, "error", err)
	}
}
