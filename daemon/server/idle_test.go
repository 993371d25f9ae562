package server

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestWaitIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		busyUntil := start.Add(time.Hour)
		if !waitIdle(t.Context(), 10*time.Minute, func() bool { return time.Now().Before(busyUntil) }) {
			t.Fatal("gave up without being idle")
		}
		if d := time.Since(start); d < 69*time.Minute || d > 71*time.Minute {
			t.Errorf("left after %v, want ten minutes after the last hour of work", d)
		}
	})
}

func TestWaitIdleEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if waitIdle(ctx, 0, func() bool { return false }) {
			t.Error("a limit of 0 is never reached")
		}
	})
}
