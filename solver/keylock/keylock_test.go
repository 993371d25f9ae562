package keylock

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

func TestLocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ks := &Locks[string]{}
		unlock, err := ks.Lock(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		other, err := ks.Lock(t.Context(), "b")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := ks.Lock(ctx, "a"); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		var got atomic.Bool
		go func() {
			unlock, err := ks.Lock(t.Context(), "a")
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
