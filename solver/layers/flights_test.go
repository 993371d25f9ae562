package layers

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

func TestFlightsRunOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var work sync.WaitGroup
		fs := newFlights[string, int](t.Context(), &work)
		var runs atomic.Int32
		release := make(chan struct{})
		for i := range 5 {
			go func() {
				err := fs.do(t.Context(), "k", i, func(_ context.Context, f *flight[int]) error {
					runs.Add(1)
					<-release
					n := 0
					f.each(func(int, int) bool { n++; return true })
					if n != 5 {
						t.Errorf("%d wait", n)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}()
		}
		synctest.Wait()
		close(release)
		synctest.Wait()
		work.Wait()
		if runs.Load() != 1 || len(fs.table) != 0 {
			t.Errorf("%d runs, %d left", runs.Load(), len(fs.table))
		}
	})
}

func TestFlightsEndWithTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var work sync.WaitGroup
		fs := newFlights[string, int](t.Context(), &work)
		var ended atomic.Bool
		linger := make(chan struct{})
		run := func(ctx context.Context, _ *flight[int]) error {
			<-ctx.Done()
			ended.Store(true)
			<-linger
			return context.Cause(ctx)
		}
		var leave []context.CancelFunc
		for i := range 3 {
			ctx, cancel := context.WithCancel(t.Context())
			leave = append(leave, cancel)
			go func() {
				if err := fs.do(ctx, "k", i, run); !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			}()
		}
		synctest.Wait()
		leave[0]()
		leave[1]()
		synctest.Wait()
		if ended.Load() {
			t.Fatal("it ended while somebody waited")
		}
		leave[2]()
		synctest.Wait()
		if !ended.Load() {
			t.Fatal("it goes on for nobody")
		}
		// Who comes now joins nothing that is ending.
		err := fs.do(t.Context(), "k", 9, func(context.Context, *flight[int]) error { return nil })
		if err != nil {
			t.Error(err)
		}
		close(linger)
		work.Wait()
	})
}

func TestKeyedLocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ks := newKeyedLocks[string]()
		unlock, err := ks.lock(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		other, err := ks.lock(t.Context(), "b")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := ks.lock(ctx, "a"); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		var got atomic.Bool
		go func() {
			unlock, err := ks.lock(t.Context(), "a")
			if err != nil {
				t.Error(err)
				return
			}
			got.Store(true)
			unlock()
		}()
		synctest.Wait()
		if got.Load() {
			t.Error("two have it")
		}
		unlock()
		other()
		synctest.Wait()
		if !got.Load() || len(ks.table) != 0 {
			t.Errorf("got %v, %d left", got.Load(), len(ks.table))
		}
	})
}
