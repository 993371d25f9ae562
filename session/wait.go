package session

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// waiter hands out the sessions of a list, those that are here first, and each once. One that is away is waited for within
// the manager's limits, counted from when waiting began.
type waiter struct {
	m     *Manager
	keys  []key
	tried map[*remote]bool
	since time.Time
	timer *time.Timer
}

func (m *Manager) waiter(keys []key) *waiter {
	return &waiter{m: m, keys: keys, tried: map[*remote]bool{}, since: time.Now()}
}

// next returns a session that was not handed out yet, nil when none can be expected any more, or the context's cause.
func (w *waiter) next(ctx context.Context) (*remote, error) {
	for {
		r, wait, changed, err := w.look()
		if r != nil || err != nil {
			return r, err
		}
		if wait <= 0 {
			return nil, nil
		}
		if w.timer == nil {
			w.timer = time.NewTimer(wait)
		} else {
			w.timer.Reset(wait)
		}
		select {
		case <-changed:
		case <-w.timer.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// look returns the first session that is here, or else how much longer it makes sense to wait and what for.
func (w *waiter) look() (r *remote, wait time.Duration, changed <-chan struct{}, err error) {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	if w.m.closed {
		return nil, 0, nil, ErrClosed
	}
	now := time.Now()
	for _, k := range w.keys {
		if r := w.m.live[k]; r != nil {
			if !w.tried[r] {
				w.tried[r] = true
				return r, 0, nil, nil
			}
			continue
		}
		limit := w.m.o.Wait
		// A client that has just left will hardly be back, so its build is told soon. Long after, the same id is a new session's.
		if left, ok := w.m.gone[k]; ok && w.since.Sub(left) < w.m.o.Wait {
			limit = w.m.o.Grace
		}
		wait = max(wait, w.since.Add(limit).Sub(now))
	}
	return nil, wait, w.m.changed, nil
}

// missing says of each session that is not here whether it never came or left.
func (w *waiter) missing() string {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	var parts []string
	for _, k := range w.keys {
		if w.m.live[k] != nil {
			continue
		}
		if left, ok := w.m.gone[k]; ok && w.since.Sub(left) < w.m.o.Wait {
			parts = append(parts, fmt.Sprintf("session %s is over", k.id))
		} else {
			parts = append(parts, fmt.Sprintf("session %s did not arrive within %s", k.id, w.m.o.Wait))
		}
	}
	return strings.Join(parts, "; ")
}

func (w *waiter) stop() {
	if w.timer != nil {
		w.timer.Stop()
	}
}
