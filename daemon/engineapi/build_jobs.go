package engineapi

import (
	"context"
	"sync"
)

// jobs knows the requests that run under a client's name for its build. There may be several: the build and its upload.
type jobs struct {
	mu   sync.Mutex
	byID map[string]map[*job]struct{}
}

type job struct{ cancel context.CancelFunc }

// start returns a context that ends when the id is cancelled. done must be called.
func (j *jobs) start(ctx context.Context, id string) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancel(ctx)
	if id == "" {
		return ctx, cancel
	}
	one := &job{cancel: cancel}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.byID == nil {
		j.byID = map[string]map[*job]struct{}{}
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

// cancel ends all that runs under an id; nothing may.
func (j *jobs) cancel(id string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for one := range j.byID[id] {
		one.cancel()
	}
}
