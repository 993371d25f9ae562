package layers

import (
	"container/list"
	"context"
	"errors"
	"sync"
)

// handles shares things that are costly to open, such as the mount of a blob: one per key however many use it. Idle ones are
// kept, the least recently used closed first.
type handles[K comparable, V any] struct {
	open  func(K) (V, error)
	close func(V) error
	keep  int // idle ones

	mu    sync.Mutex
	table map[K]*handle[K, V]
	idle  *list.List // of *handle, least recently used first
}

type handle[K comparable, V any] struct {
	key   K
	users int
	elem  *list.Element // in idle
	gone  bool          // no longer in the table; closed by its last user

	ready chan struct{} // closed once value and err are set
	value V
	err   error
}

func newHandles[K comparable, V any](keep int, open func(K) (V, error), closeFn func(V) error) *handles[K, V] {
	return &handles[K, V]{open: open, close: closeFn, keep: keep, table: map[K]*handle[K, V]{}, idle: list.New()}
}

// acquire opens what k names, or shares what is open. release must be called once.
func (hs *handles[K, V]) acquire(ctx context.Context, k K) (v V, release func() error, err error) {
	hs.mu.Lock()
	h := hs.table[k]
	if h == nil {
		h = &handle[K, V]{key: k, users: 1, ready: make(chan struct{})}
		hs.table[k] = h
		hs.mu.Unlock()
		h.value, h.err = hs.open(k)
		close(h.ready)
	} else {
		h.users++
		if h.elem != nil {
			hs.idle.Remove(h.elem)
			h.elem = nil
		}
		hs.mu.Unlock()
	}
	select {
	case <-h.ready:
	case <-ctx.Done():
		return v, nil, errors.Join(context.Cause(ctx), hs.release(h))
	}
	if h.err != nil {
		return v, nil, errors.Join(h.err, hs.release(h))
	}
	return h.value, sync.OnceValue(func() error { return hs.release(h) }), nil
}

func (hs *handles[K, V]) release(h *handle[K, V]) error {
	hs.mu.Lock()
	h.users--
	var doomed []*handle[K, V]
	if h.users == 0 {
		if !h.gone && !h.failed() {
			h.elem = hs.idle.PushBack(h)
		} else {
			hs.forget(h)
			doomed = append(doomed, h)
		}
	}
	for hs.idle.Len() > hs.keep {
		old := hs.idle.Front().Value.(*handle[K, V])
		hs.forget(old)
		doomed = append(doomed, old)
	}
	hs.mu.Unlock()
	return hs.closeAll(doomed)
}

// drop closes what k names, at once or when its last user is done; who asks for k next opens it anew.
func (hs *handles[K, V]) drop(k K) error {
	hs.mu.Lock()
	h := hs.table[k]
	if h == nil {
		hs.mu.Unlock()
		return nil
	}
	idle := h.elem != nil
	hs.forget(h)
	hs.mu.Unlock()
	if idle {
		return hs.closeAll([]*handle[K, V]{h})
	}
	return nil
}

// closeIdle closes all that nobody uses and keeps none from now on.
func (hs *handles[K, V]) closeIdle() error {
	hs.mu.Lock()
	hs.keep = 0
	var doomed []*handle[K, V]
	for hs.idle.Len() > 0 {
		h := hs.idle.Front().Value.(*handle[K, V])
		hs.forget(h)
		doomed = append(doomed, h)
	}
	hs.mu.Unlock()
	return hs.closeAll(doomed)
}

// forget is called under mu.
func (hs *handles[K, V]) forget(h *handle[K, V]) {
	h.gone = true
	if hs.table[h.key] == h {
		delete(hs.table, h.key)
	}
	if h.elem != nil {
		hs.idle.Remove(h.elem)
		h.elem = nil
	}
}

func (hs *handles[K, V]) closeAll(hh []*handle[K, V]) error {
	var errs []error
	for _, h := range hh {
		<-h.ready // its opener may have been left waiting by a user who gave up
		if h.err == nil {
			errs = append(errs, hs.close(h.value))
		}
	}
	return errors.Join(errs...)
}

// failed is asked by users only, so an open that is still under way was given up.
func (h *handle[K, V]) failed() bool {
	select {
	case <-h.ready:
		return h.err != nil
	default:
		return false
	}
}
