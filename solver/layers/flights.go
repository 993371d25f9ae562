package layers

import (
	"context"
	"sync"
)

// flights runs a piece of work once however many ask for it at the same time. The work has a context of its own, which ends
// when the last who waits has left; a call that nobody waits for is out of the table before a newcomer could join it. Each who
// waits lends a value, of which the work may use those of whoever waits at the moment.
type flights[K comparable, W any] struct {
	parent context.Context
	work   *sync.WaitGroup // counts what runs; its owner sees to it that it is not waited for while do is called

	mu    sync.Mutex
	table map[K]*flight[W]
}

type flight[W any] struct {
	cancel context.CancelCauseFunc
	done   chan struct{}
	err    error

	mu      sync.Mutex // guards waiters; comes after the mu of flights
	nextKey int
	waiters map[int]W
}

func newFlights[K comparable, W any](parent context.Context, work *sync.WaitGroup) *flights[K, W] {
	return &flights[K, W]{parent: parent, work: work, table: map[K]*flight[W]{}}
}

// do runs fn under key, or waits for the run that is under way, lending it w.
func (fs *flights[K, W]) do(ctx context.Context, key K, w W, fn func(ctx context.Context, f *flight[W]) error) error {
	fs.mu.Lock()
	f := fs.table[key]
	first := f == nil
	var fctx context.Context
	if first {
		var cancel context.CancelCauseFunc
		fctx, cancel = context.WithCancelCause(fs.parent)
		f = &flight[W]{cancel: cancel, done: make(chan struct{}), waiters: map[int]W{}}
		fs.table[key] = f
	}
	n := f.join(w)
	if first { // only now: it may use what w lends from its first moment on
		fs.work.Add(1)
		go fs.run(fctx, key, f, fn)
	}
	fs.mu.Unlock()

	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f.leave(n) {
		fs.remove(key, f)
		f.cancel(context.Cause(ctx))
	}
	return context.Cause(ctx)
}

func (fs *flights[K, W]) run(ctx context.Context, key K, f *flight[W], fn func(context.Context, *flight[W]) error) {
	defer fs.work.Done()
	f.err = fn(ctx, f)
	fs.mu.Lock()
	fs.remove(key, f)
	fs.mu.Unlock()
	f.cancel(nil)
	close(f.done)
}

// remove is called under mu.
func (fs *flights[K, W]) remove(key K, f *flight[W]) {
	if fs.table[key] == f {
		delete(fs.table, key)
	}
}

func (f *flight[W]) join(w W) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nextKey++
	f.waiters[f.nextKey] = w
	return f.nextKey
}

func (f *flight[W]) leave(n int) (last bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.waiters, n)
	return len(f.waiters) == 0
}

// each calls fn for those who wait, in the order they came, until it returns false.
func (f *flight[W]) each(fn func(n int, w W) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n := 1; n <= f.nextKey; n++ {
		if w, ok := f.waiters[n]; ok && !fn(n, w) {
			return
		}
	}
}

// keyedLocks is a lock per key that can be waited for with a context.
type keyedLocks[K comparable] struct {
	mu    sync.Mutex
	table map[K]*keyedLock
}

type keyedLock struct {
	users int
	token chan struct{}
}

func newKeyedLocks[K comparable]() *keyedLocks[K] {
	return &keyedLocks[K]{table: map[K]*keyedLock{}}
}

func (ks *keyedLocks[K]) lock(ctx context.Context, k K) (unlock func(), err error) {
	ks.mu.Lock()
	l := ks.table[k]
	if l == nil {
		l = &keyedLock{token: make(chan struct{}, 1)}
		ks.table[k] = l
	}
	l.users++
	ks.mu.Unlock()
	leave := func() {
		ks.mu.Lock()
		defer ks.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(ks.table, k)
		}
	}
	select {
	case l.token <- struct{}{}:
		return func() { <-l.token; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}
