// Package keylock has a lock per key that is waited for with a context.
package keylock

import (
	"context"
	"sync"
)

// Locks is a table of locks, one for every key that is held or waited for. The zero value is ready. All methods are safe for
// concurrent use.
type Locks[K comparable] struct {
	mu    sync.Mutex
	table map[K]*entry
}

type entry struct {
	users int           // who hold it or wait; guarded by the table's mu
	token chan struct{} // full while somebody holds it
}

// Lock takes the lock of a key. The caller calls unlock once. If ctx ends first its cause is returned.
func (l *Locks[K]) Lock(ctx context.Context, key K) (unlock func(), err error) {
	l.mu.Lock()
	if l.table == nil {
		l.table = map[K]*entry{}
	}
	e := l.table[key]
	if e == nil {
		e = &entry{token: make(chan struct{}, 1)}
		l.table[key] = e
	}
	e.users++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if e.users--; e.users == 0 {
			delete(l.table, key)
		}
	}
	select {
	case e.token <- struct{}{}:
		return func() { <-e.token; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}
