package daemon

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestDriverMayBeAheadOfItsBuild(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, want := newGateways(), &Gateway{}
		time.AfterFunc(gatewayWait-time.Second, func() { g.add("b", want) })
		time.AfterFunc(time.Second, func() { g.add("other", &Gateway{}) })
		if got, err := g.find(t.Context(), "b"); err != nil || got != want {
			t.Errorf("got %p, %v", got, err)
		}
		g.remove("b")
		began := time.Now()
		if _, err := g.find(t.Context(), "b"); !errors.Is(err, ErrNoBuild) || time.Since(began) != gatewayWait {
			t.Errorf("a build that never comes: %v after %v", err, time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := g.find(ctx, "b"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a caller who gave up: %v", err)
		}
	})
}
