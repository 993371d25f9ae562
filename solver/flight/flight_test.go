package flight_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipwaybuild/slipway/solver/flight"
)

// work makes a leader of run.
func work[V any](run func(c *flight.Call) (V, error)) func() flight.Work[V] {
	return func() flight.Work[V] { return flight.Work[V]{Run: run} }
}

// bubble runs f on a fresh group, which it closes.
func bubble[V any](t *testing.T, opts flight.Options[V], f func(t *testing.T, g *flight.Group[string, V])) {
	synctest.Test(t, func(t *testing.T) {
		g := flight.New[string](context.Background(), opts)
		f(t, g)
		if err := g.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
}

func TestWorkIsSharedByAllWhoAskAtOnce(t *testing.T) {
	bubble(t, flight.Options[int]{}, func(t *testing.T, g *flight.Group[string, int]) {
		runs, gate := 0, make(chan struct{})
		ask := work(func(c *flight.Call) (int, error) {
			runs++
			<-gate
			return len(c.Participants()), nil
		})
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				do := g.Do
				if i == 1 {
					do = g.DoHere
				}
				if v, err := do(t.Context(), "k", i, ask); v != 3 || err != nil {
					t.Errorf("Do = %d, %v", v, err)
				}
			})
		}
		synctest.Wait()
		close(gate)
		wg.Wait()
		if runs != 1 {
			t.Errorf("%d runs", runs)
		}
		if _, joined, err := g.Join(t.Context(), "k", nil); joined || err != nil {
			t.Errorf("Join after the end = %v, %v", joined, err)
		}
	})
}

func TestTheLastToLeaveCancelsAndANewcomerStartsAfresh(t *testing.T) {
	for _, here := range []bool{false, true} {
		bubble(t, flight.Options[int]{}, func(t *testing.T, g *flight.Group[string, int]) {
			winding := make(chan struct{})
			ctx, cancel := context.WithCancel(t.Context())
			left := make(chan struct{})
			go func() {
				do := g.Do
				if here {
					do = g.DoHere
				}
				_, err := do(ctx, "k", nil, work(func(c *flight.Call) (int, error) {
					<-c.Context().Done()
					<-winding
					return 1, nil
				}))
				if !errors.Is(err, context.Canceled) {
					t.Errorf("who left got %v", err)
				}
				close(left)
			}()
			synctest.Wait()
			cancel()
			synctest.Wait()
			v, err := g.Do(t.Context(), "k", nil, work(func(*flight.Call) (int, error) { return 2, nil }))
			if v != 2 || err != nil {
				t.Errorf("a newcomer got %d, %v", v, err)
			}
			closing, stop := context.WithTimeout(t.Context(), time.Second)
			defer stop()
			if err := g.Close(closing); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Close = %v though work still winds down", err)
			}
			close(winding)
			<-left
		})
	}
}

func TestALeaderLeavesAndOthersGetTheValue(t *testing.T) {
	for _, here := range []bool{false, true} {
		bubble(t, flight.Options[int]{}, func(t *testing.T, g *flight.Group[string, int]) {
			gate := make(chan struct{})
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() {
				do := g.Do
				if here {
					do = g.DoHere
				}
				if _, err := do(ctx, "k", "leader", work(func(c *flight.Call) (int, error) {
					<-gate
					if got := c.Participants(); !slices.Equal(got, []any{"other"}) {
						t.Errorf("participants are %v", got)
					}
					return 1, c.Context().Err()
				})); !errors.Is(err, context.Canceled) {
					t.Errorf("the leader got %v", err)
				}
			})
			synctest.Wait()
			wg.Go(func() {
				v, joined, err := g.Join(t.Context(), "k", "other")
				if v != 1 || !joined || err != nil {
					t.Errorf("the other got %d, %v, %v", v, joined, err)
				}
			})
			synctest.Wait()
			cancel()
			synctest.Wait()
			close(gate)
			wg.Wait()
		})
	}
}

func TestSomebodyElsesTimeOutIsNoAnswer(t *testing.T) {
	bubble(t, flight.Options[int]{}, func(t *testing.T, g *flight.Group[string, int]) {
		gate := make(chan struct{})
		runs := atomic.Int64{}
		lead := work(func(*flight.Call) (int, error) {
			if runs.Add(1) == 1 {
				<-gate
				return 0, context.DeadlineExceeded // the work's own
			}
			return 7, nil
		})
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := g.Do(t.Context(), "k", nil, lead); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the leader got %v", err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if v, err := g.Do(t.Context(), "k", nil, lead); v != 7 || err != nil {
				t.Errorf("the other got %d, %v", v, err)
			}
		})
		wg.Go(func() {
			if _, joined, err := g.Join(t.Context(), "k", nil); joined || err != nil {
				t.Errorf("who only joins got %v, %v", joined, err)
			}
		})
		synctest.Wait()
		close(gate)
		wg.Wait()
	})
}

func TestPanicsAreErrors(t *testing.T) {
	bubble(t, flight.Options[int]{}, func(t *testing.T, g *flight.Group[string, int]) {
		_, err := g.Do(t.Context(), "k", nil, work(func(*flight.Call) (int, error) { panic("oops") }))
		var p *flight.PanicError
		if !errors.As(err, &p) || p.Value != "oops" || len(p.Stack) == 0 {
			t.Errorf("got %v", err)
		}
	})
}

func TestValuesAreOwned(t *testing.T) {
	live := atomic.Int64{}
	opts := flight.Options[int]{
		Clone:   func(v int) int { live.Add(1); return v },
		Release: func(int) { live.Add(-1) },
	}
	synctest.Test(t, func(t *testing.T) {
		g := flight.New[string](context.Background(), opts)
		make1 := work(func(*flight.Call) (int, error) {
			time.Sleep(time.Second)
			live.Add(1)
			return 1, nil
		})
		taken := atomic.Int64{}
		for i := range 10 {
			go func() {
				// Some leave before the end, some at the very moment, and some after.
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*200*time.Millisecond)
				defer cancel()
				if _, err := g.Do(ctx, "k", nil, make1); err == nil {
					taken.Add(1)
				}
			}()
		}
		time.Sleep(time.Minute)
		if live.Load() != taken.Load() {
			t.Errorf("%d values are live, %d were taken", live.Load(), taken.Load())
		}
		ctx, cancel := context.WithCancel(t.Context())
		live.Store(0)
		go func() {
			_, _ = g.Do(ctx, "k", nil, work(func(c *flight.Call) (int, error) {
				<-c.Context().Done()
				live.Add(1)
				return 1, nil // though nobody wants it any more
			}))
		}()
		synctest.Wait()
		cancel()
		synctest.Wait()
		if live.Load() != 0 {
			t.Errorf("%d values are left of abandoned work", live.Load())
		}
		if err := g.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := g.Do(t.Context(), "k", nil, make1); !errors.Is(err, flight.ErrClosed) {
			t.Errorf("a closed group answers %v", err)
		}
	})
}

func TestJoinAndDone(t *testing.T) {
	bubble(t, flight.Options[int]{}, func(t *testing.T, g *flight.Group[string, int]) {
		var mu sync.Mutex
		var story []string
		tell := func(s string) {
			mu.Lock()
			defer mu.Unlock()
			story = append(story, s)
		}
		gate := make(chan struct{})
		lead := func() flight.Work[int] {
			return flight.Work[int]{
				Run:  func(*flight.Call) (int, error) { <-gate; return 1, nil },
				Join: func(p any) func() { tell("join " + p.(string)); return func() { tell("leave " + p.(string)) } },
				Done: func() { tell("done") },
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _, _ = g.Do(ctx, "k", "a", lead) }()
		synctest.Wait()
		go func() { _, _ = g.Do(t.Context(), "k", "b", lead) }()
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(gate)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if want := []string{"join a", "join b", "leave a", "leave b", "done"}; !slices.Equal(story, want) {
			t.Errorf("got %v, want %v", story, want)
		}
	})
}

func TestCloseCancelsWhatIsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := flight.New[string](context.Background(), flight.Options[int]{})
		go func() {
			_, err := g.Do(t.Context(), "k", nil, work(func(c *flight.Call) (int, error) {
				<-c.Context().Done()
				return 0, c.Context().Err()
			}))
			if !errors.Is(err, flight.ErrClosed) {
				t.Errorf("a waiter got %v", err)
			}
		}()
		synctest.Wait()
		if err := g.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkDo(b *testing.B) {
	g := flight.New[int](context.Background(), flight.Options[int]{})
	lead := work(func(*flight.Call) (int, error) { return 1, nil })
	for name, do := range map[string]func(context.Context, int, any, func() flight.Work[int]) (int, error){"Do": g.Do, "DoHere": g.DoHere} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := do(b.Context(), 1, nil, lead); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
