package local

import (
	"sync"
	"time"

	"github.com/slipwaybuild/slipway/solver/flight"
	"github.com/slipwaybuild/slipway/solver/progress"
	"github.com/slipwaybuild/slipway/solver/source"
)

// progressEvery is how often a moving status is written.
const progressEvery = 100 * time.Millisecond

// transferred shows the bytes of one sync to all who wait for it.
type transferred struct {
	c *flight.Call

	mu      sync.Mutex // guards the rest
	status  progress.Status
	written time.Time
}

func newProgress(c *flight.Call, name string) *transferred {
	now := time.Now()
	t := &transferred{c: c, status: progress.Status{ID: "transferring " + name + ":", Name: "transferring", Started: &now}}
	t.write(now)
	return t
}

func (t *transferred) add(n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.status.Current += n
	if now := time.Now(); now.Sub(t.written) >= progressEvery {
		t.write(now)
	}
}

func (t *transferred) done() {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.status.Completed = &now
	t.write(now)
}

// write tells everyone who waits now. mu is held.
func (t *transferred) write(now time.Time) {
	t.written = now
	t.status.Timestamp = now
	for _, p := range t.c.Participants() {
		if w := p.(source.Env).Progress; w != nil {
			w.Status(t.status)
		}
	}
}
