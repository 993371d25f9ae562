package samehost

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// maxThreads is how many threads act for one client at a time. Opening files is all they wait for.
const maxThreads = 4

// threads run functions as a client. Where the client is who we are, any thread does.
type threads struct {
	own, id identity
	same    bool

	jobs chan func()
	stop chan struct{}
	wg   sync.WaitGroup

	mu      sync.Mutex // guards what follows
	started int
}

// newThreads fails if this process, which is own, may not act as id.
func newThreads(own, id identity) (*threads, error) {
	t := &threads{own: own, id: id, jobs: make(chan func()), stop: make(chan struct{})}
	id.caps &= own.caps
	t.id.caps = id.caps
	t.same = own.alike(id)
	if t.same {
		return t, nil
	}
	if err := t.start(); err != nil {
		return nil, err
	}
	return t, nil
}

// start starts a thread. It is called under mu, or before anybody else knows t.
func (t *threads) start() error {
	ready := make(chan error)
	t.wg.Go(func() {
		onOwnThread(func() {
			err := becomeQuietly(t.own, t.id)
			ready <- err
			if err == nil {
				t.serve()
			}
		})
	})
	if err := <-ready; err != nil {
		return fmt.Errorf("act as user %d: %w", t.id.uid, err)
	}
	t.started++
	return nil
}

func (t *threads) serve() {
	for {
		select {
		case job := <-t.jobs:
			job()
		case <-t.stop:
			return
		}
	}
}

// onOwnThread runs f on a thread that ends with it, since it may not be like the others any more. It must end the goroutine. The
// process's first thread, which never ends and by which /proc shows the process, is left alone.
func onOwnThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return // still locked: the thread goes with the goroutine
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		onOwnThread(f) // this thread is taken, so it is another
	}()
	<-done
	runtime.UnlockOSThread()
}

// do runs f as the client and returns when it has. f must not wait for another do.
func (t *threads) do(ctx context.Context, f func()) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if t.same {
		f()
		return nil
	}
	done := make(chan struct{})
	job := func() {
		defer close(done)
		f()
	}
	select {
	case t.jobs <- job:
	default:
		if err := t.more(); err != nil {
			return err
		}
		select {
		case t.jobs <- job:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	<-done
	return nil
}

// more starts another thread if there may be one.
func (t *threads) more() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.started >= maxThreads {
		return nil
	}
	return t.start()
}

// close ends the threads. Nothing may be running on them.
func (t *threads) close() {
	close(t.stop)
	t.wg.Wait()
}
