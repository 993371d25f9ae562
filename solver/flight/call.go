package flight

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
)

// Call is a flight as its work sees it.
type Call struct {
	ctx    context.Context
	cancel context.CancelFunc

	mu      *sync.Mutex // the group's; guards what follows
	waiters map[*waiter]struct{}
	joined  int // how many ever joined
}

// waiter is one wait for a flight.
type waiter struct {
	participant any
	order       int
	leads       bool
}

// Context ends when nobody waits for the flight any more, or the group is closed.
func (c *Call) Context() context.Context { return c.ctx }

// Participants returns those of the waiters there are now, in the order in which they joined. The same value appears as often
// as it waits.
func (c *Call) Participants() []any {
	c.mu.Lock()
	waiters := make([]*waiter, 0, len(c.waiters))
	for w := range c.waiters {
		waiters = append(waiters, w)
	}
	c.mu.Unlock()
	slices.SortFunc(waiters, func(a, b *waiter) int { return cmp.Compare(a.order, b.order) })
	all := make([]any, len(waiters))
	for i, w := range waiters {
		all[i] = w.participant
	}
	return all
}

// add makes participant a waiter. The caller holds the lock.
func (c *Call) add(participant any, leads bool) *waiter {
	if c.waiters == nil {
		c.waiters = make(map[*waiter]struct{}, 1)
	}
	w := &waiter{participant: participant, order: c.joined, leads: leads}
	c.joined++
	c.waiters[w] = struct{}{}
	return w
}

// PanicError is the error of work that panicked.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v\n\n%s", e.Value, e.Stack) }

// Unwrap returns the value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

var errGoexit = errors.New("the work ended its goroutine")

// protect turns a panic in the work into an error.
func protect[V any](c *Call, run func(*Call) (V, error)) (v V, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &PanicError{Value: r, Stack: debug.Stack()}
		}
	}()
	return run(c)
}
