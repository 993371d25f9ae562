package engineapi

import (
	"context"
	"sync"

	"github.com/slipwaybuild/slipway/session/peer"
)

// jobs knows the requests that run under a client's name for its build. There may be several: the build and its upload.
type jobs struct {
	mu   sync.Mutex
	byID map[jobID]map[*job]struct{}
}

// jobID is a client's name for its build: nobody else's.
type jobID struct {
	owner peer.Identity
	name  string
}

type job struct{ cancel context.CancelFunc }

// start returns a context that ends when the id is cancelled. done must be called.
func (j *jobs) start(ctx context.Context, name string) (_ context.Context, done func()) {
	id := jobID{peer.FromContext(ctx), name}
	ctx, cancel := context.WithCancel(ctx)
	if name == "" {
		return ctx, cancel
	}
	one := &job{cancel: cancel}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.byID == nil {
		j.byID = map[jobID]map[*job]struct{}{}
	}
	if j.byID[id] == nil {
		j.byID[id] = map[*job]struct{}{}
	}
	j.byID[id][one] = struct{}{}
	return ctx, func() {
		cancel()
		j.mu.Lock()
		defer j.mu.Unlock()
		if delete(j.byID[id], one); len(j.byID[id]) == 0 {
			delete(j.byID, id)
		}
	}
}

// cancel ends all that the client of ctx runs under a name; nothing may.
func (j *jobs) cancel(ctx context.Context, name string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for one := range j.byID[jobID{peer.FromContext(ctx), name}] {
		one.cancel()
	}
}
