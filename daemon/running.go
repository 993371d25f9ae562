package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/slipwaybuild/slipway/session/peer"
)

// ErrForeignBuild is the answer to who wants to change another client's build.
var ErrForeignBuild = errors.New("the build is another client's")

// errCancelled is why a build ends that was cancelled by its name.
var errCancelled = fmt.Errorf("%w by request", context.Canceled)

// running knows the builds under way: whose they are, and how they are ended.
type running struct {
	mu    sync.Mutex
	byRef map[string]*owned
}

type owned struct {
	owner  peer.Identity
	cancel context.CancelCauseFunc
}

// start returns a context that Cancel ends. Refs of builds that run are unique. done must be called when the build is over.
func (r *running) start(ctx context.Context, ref string, owner peer.Identity) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byRef == nil {
		r.byRef = map[string]*owned{}
	}
	r.byRef[ref] = &owned{owner, cancel}
	return ctx, func() {
		cancel(nil)
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.byRef, ref)
	}
}

// Cancel ends a build for who asks, whatever door it came through: ErrNoBuild if none of that name runs, ErrForeignBuild if it is another
// client's, which only the superuser may end. It does not wait for the end.
func (e *Engine) Cancel(who peer.Identity, ref string) error {
	e.running.mu.Lock()
	defer e.running.mu.Unlock()
	b := e.running.byRef[ref]
	switch {
	case b == nil:
		return fmt.Errorf("%w that runs: %q", ErrNoBuild, ref)
	case b.owner != who && who != peer.Root:
		return fmt.Errorf("cancel build %q: %w", ref, ErrForeignBuild)
	}
	b.cancel(errCancelled)
	return nil
}
