package solver_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/slipwaybuild/slipway/solver"
)

// ab is a small graph made afresh: c = a + b, d = c + a.
func (w *world) ab() *solver.Vertex {
	a, b := w.vertex("a", 1), w.vertex("b", 2)
	c := w.vertex("c", 0, a, b)
	return w.vertex("d", 0, c, a)
}

func TestColdRunsEachStepOnceAndWarmRunsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.end()
		b, _ := w.build()
		d := w.ab()
		w.wantValue(b, d, 4)
		w.wantValue(b, d, 4)
		w.wantRuns("a", "b", "c", "d")
		w.close(b)

		b, sink := w.build()
		w.wantValue(b, w.ab(), 4)
		w.wantRuns()
		w.close(b)
		last, _ := steps(sink)
		for _, name := range []string{"a", "b", "c", "d"} {
			if v := last[name]; v == nil || !v.Cached || v.Started == nil || v.Completed == nil {
				t.Errorf("step %s is shown as %+v, want cached", name, v)
			}
		}
	})
}

func TestBuildsThatMeetShareRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.end()
		for range 5 {
			b, _ := w.build()
			d := w.ab()
			go func() {
				w.wantValue(b, d, 4)
				w.close(b)
			}()
		}
		synctest.Wait()
		w.wantRuns("a", "b", "c", "d")
	})
}

func TestAFailureNamesItsStepAndIsNotCached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.end()
		broken := errors.New("exit code 1")
		fail := true
		graph := func() *solver.Vertex {
			a := with(w.vertex("a", 1), func(o *op) {
				o.run = func(context.Context, solver.Call, []int) ([]int, error) {
					if fail {
						return nil, broken
					}
					return []int{1}, nil
				}
			})
			return w.vertex("b", 1, a)
		}
		b, sink := w.build()
		v := graph()
		for range 2 {
			_, err := b.Result(t.Context(), edge(v))
			var at *solver.VertexError
			if !errors.Is(err, broken) || !errors.As(err, &at) || at.Vertex.Name != "a" {
				t.Errorf("got %v, want a failure of a", err)
			}
		}
		w.wantRuns("a")
		w.close(b)
		last, _ := steps(sink)
		if v := last["a"]; v == nil || v.Error != broken.Error() || v.Completed == nil {
			t.Errorf("a is shown as %+v", v)
		}
		if v := last["b"]; v != nil {
			t.Errorf("b is shown as %+v, though it never began", v)
		}
		fail = false
		b, _ = w.build()
		w.wantValue(b, graph(), 2)
		w.wantRuns("a", "b")
		w.close(b)
	})
}

func TestAPanicFailsItsStepAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.end()
		v := with(w.vertex("a", 1), func(o *op) {
			o.run = func(context.Context, solver.Call, []int) ([]int, error) { panic("oops") }
		})
		key := with(w.vertex("k", 1), func(o *op) {
			o.pin = func(context.Context, solver.Call) (string, error) { panic("oops") }
		})
		b, _ := w.build()
		for _, v := range []*solver.Vertex{v, key} {
			if _, err := b.Result(t.Context(), edge(w.vertex("b", 1, v))); err == nil {
				t.Errorf("%s panics and gives no error", v.Name)
			}
		}
		w.wantValue(b, w.vertex("c", 3), 3)
		w.close(b)
	})
}

func TestEqualWorkMeets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.end()
		// Two vertices with one promise, and two whose promises differ and whose identity is one: they read the same of
		// different inputs.
		b, _ := w.build()
		x := w.vertex("sum", 0, w.vertex("x", 7), w.vertex("x", 7))
		w.wantValue(b, x, 14)
		w.wantRuns("x", "sum")
		l := reading(w.vertex("read", 0, w.vertex("l", 13)), 10)
		r := reading(w.vertex("read", 0, w.vertex("r", 23)), 10)
		w.wantValue(b, w.vertex("sum", 0, l, r), 6)
		w.wantRuns("l", "r", "read", "sum")
		w.close(b)
	})
}

func TestEarlyCutoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.end()
		graph := func(src int) *solver.Vertex {
			src0 := w.vertex("src", src)
			copied := reading(w.vertex("copy", 0, src0), 10)
			return w.vertex("after", 1, w.vertex("run", 100, copied))
		}
		for _, c := range []struct {
			src, want int
			runs      []string
		}{
			{13, 104, []string{"src", "copy", "run", "after"}},
			{13, 104, nil},
			{23, 104, []string{"src"}}, // what copy reads is the same
			{23, 104, nil},
			{24, 105, []string{"src", "copy", "run", "after"}},
			{13, 104, nil},
		} {
			b, _ := w.build()
			w.wantValue(b, graph(c.src), c.want)
			w.wantRuns(c.runs...)
			w.close(b)
		}
	})
}

func TestPrunedInputsAreNamedWithoutBeingMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.end()
		base := func() *solver.Vertex { return w.vertex("base", 13, w.vertex("deep", 10)) }
		b, _ := w.build()
		w.wantValue(b, reading(w.vertex("copy", 0, base()), 10), 3)
		w.wantRuns("deep", "base", "copy")
		w.close(b)
		err := w.store.Prune(func(r solver.Record) bool { return r.Name == "base" || r.Name == "deep" })
		if err != nil {
			t.Fatal(err)
		}
		// Another step that reads the same of a base that is gone: nothing but itself runs, once base is made for it.
		b, _ = w.build()
		id, err := b.Identity(t.Context(), edge(base()))
		if err != nil || id == (solver.Identity{}) {
			t.Errorf("Identity = %v, %v", id, err)
		}
		w.wantRuns()
		other := reading(w.vertex("copy", 0, base(), w.vertex("none", 0)), 10)
		if _, err := b.Identity(t.Context(), edge(other)); err != nil {
			t.Errorf("Identity = %v", err)
		}
		w.wantRuns("none")
		w.close(b)
	})
}

func TestOutputs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.end()
		v := with(w.vertex("two", 0), func(o *op) {
			o.run = func(context.Context, solver.Call, []int) ([]int, error) { return []int{1, 2}, nil }
		})
		b, _ := w.build()
		first, second := w.vertex("n", 0), w.vertex("n", 0)
		first.Inputs = []solver.Edge{{Vertex: v, Output: 0}}
		second.Inputs = []solver.Edge{{Vertex: v, Output: 1}}
		w.wantValue(b, first, 1)
		w.wantValue(b, second, 2)
		w.wantRuns("two", "n", "n")
		third := w.vertex("n", 0)
		third.Inputs = []solver.Edge{{Vertex: v, Output: 2}}
		if _, err := b.Result(t.Context(), edge(third)); err == nil {
			t.Error("an output that is not there gives no error")
		}
		w.close(b)
	})
}

func TestALeaderLeavesAndTheRunGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.end()
		release := make(chan struct{})
		graph := func() *solver.Vertex {
			slow := with(w.vertex("slow", 1), func(o *op) {
				o.run = func(ctx context.Context, call solver.Call, _ []int) ([]int, error) {
					call.Progress().Log(1, []byte("before "))
					select {
					case <-release:
						call.Progress().Log(1, []byte("after"))
						return []int{len(call.Lenders())}, nil
					case <-ctx.Done():
						return nil, ctx.Err()
					}
				}
			})
			return w.vertex("top", 0, slow)
		}
		first, firstSink := w.build(lender("first"))
		ctx, cancel := context.WithCancel(t.Context())
		v := graph()
		go func() {
			if _, err := first.Result(ctx, edge(v)); !errors.Is(err, context.Canceled) {
				t.Errorf("who gave up got %v", err)
			}
			w.close(first)
		}()
		synctest.Wait()
		second, sink := w.build(lender("second"))
		v2 := graph()
		go w.wantValue(second, v2, 1) // one lender is left
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(release)
		synctest.Wait()
		w.wantRuns("slow", "top")
		w.close(second)
		last, logs := steps(sink)
		if got := logs["slow"]; got != "before after" {
			t.Errorf("who joined late sees %q", got)
		}
		if v := last["slow"]; v == nil || v.Cached || v.Completed == nil {
			t.Errorf("who joined late sees %+v", v)
		}
		last, logs = steps(firstSink)
		if got := logs["slow"]; got != "before " {
			t.Errorf("who left sees %q", got)
		}
		if v := last["slow"]; v == nil || v.Error != context.Canceled.Error() {
			t.Errorf("who left sees %+v", v)
		}
	})
}

func TestAbandonedWorkIsCancelledAndAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.end()
		stuck, abandoned := make(chan struct{}), make(chan struct{})
		b, _ := w.build()
		runs := 0
		v := with(w.vertex("slow", 1), func(o *op) {
			o.run = func(ctx context.Context, _ solver.Call, _ []int) ([]int, error) {
				if runs++; runs > 1 {
					return []int{5}, nil
				}
				<-ctx.Done()
				close(abandoned)
				<-stuck // winding down takes its time
				return nil, ctx.Err()
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _, _ = b.Result(ctx, edge(v)) }()
		synctest.Wait()
		cancel()
		<-abandoned
		done := make(chan struct{})
		go func() {
			w.wantValue(b, v, 5) // the same build asks again; the op does one thing at a time
			close(done)
		}()
		synctest.Wait()
		if runs != 1 {
			t.Errorf("the op runs %d times at once", runs)
		}
		close(stuck)
		<-done
		w.close(b)
	})
}

func TestCloseLeavesToOthersWhatTheyWaitFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.end()
		release := make(chan struct{})
		graph := func() *solver.Vertex {
			return with(w.vertex("slow", 1, w.vertex("in", 1)), func(o *op) {
				o.run = func(_ context.Context, _ solver.Call, in []int) ([]int, error) {
					<-release
					return []int{in[0] + 1}, nil
				}
			})
		}
		first, _ := w.build()
		v, v2 := graph(), graph()
		go func() {
			if _, err := first.Result(t.Context(), edge(v)); !errors.Is(err, solver.ErrClosed) {
				t.Errorf("who was closed got %v", err)
			}
		}()
		synctest.Wait()
		second, _ := w.build()
		go w.wantValue(second, v2, 2)
		synctest.Wait()
		w.close(first)
		if v.Op.(*op).closed {
			t.Error("an op was closed that another build waits for")
		}
		close(release)
		synctest.Wait()
		if !v.Op.(*op).closed {
			t.Error("the op was not closed after its work")
		}
		w.wantRuns("in", "slow")
		w.close(second)
		if _, err := second.Result(t.Context(), edge(v2)); !errors.Is(err, solver.ErrClosed) {
			t.Errorf("a closed build answers %v", err)
		}
	})
}

func TestIgnoreCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.end()
		now := 0
		graph := func(ignore bool) *solver.Vertex {
			tick := func() *solver.Vertex {
				v := with(w.vertex("tick", 0, w.vertex("base", 1)), func(o *op) {
					o.run = func(context.Context, solver.Call, []int) ([]int, error) { now++; return []int{now}, nil }
				})
				v.IgnoreCache = ignore
				return v
			}
			whole := w.vertex("whole", 0, tick(), tick())
			part := reading(w.vertex("part", 0, tick()), 1)
			return w.vertex("top", 0, whole, part, w.vertex("behind", 0, part))
		}
		for i, c := range []struct {
			ignore bool
			want   int
			runs   []string
		}{
			{false, 2, []string{"base", "tick", "whole", "part", "behind", "top"}},
			{false, 2, nil},
			{true, 4, []string{"tick", "whole", "top"}},
			{false, 4, nil},
			{true, 6, []string{"tick", "whole", "top"}},
			{false, 6, nil},
		} {
			b, _ := w.build()
			w.wantValue(b, graph(c.ignore), c.want)
			w.wantRuns(c.runs...)
			w.close(b)
			if t.Failed() {
				t.Fatalf("at build %d", i)
			}
		}
	})
}

func TestLaterBuildsSeeWhatIgnoredTheCacheByWhateverWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.end()
		now := 0
		graph := func(src int, ignore bool) *solver.Vertex {
			copied := reading(w.vertex("copy", 0, w.vertex("src", src)), 10)
			tick := with(w.vertex("tick", 0, copied), func(o *op) {
				o.run = func(context.Context, solver.Call, []int) ([]int, error) { now++; return []int{now}, nil }
			})
			tick.IgnoreCache = ignore
			return w.vertex("top", 0, tick)
		}
		check := func(v *solver.Vertex, want int, runs ...string) {
			t.Helper()
			b, _ := w.build()
			w.wantValue(b, v, want)
			w.wantRuns(runs...)
			w.close(b)
		}
		check(graph(13, false), 1, "src", "copy", "tick", "top")
		check(graph(13, true), 2, "tick", "top")
		// An irrelevant edit changes every promise; the way through identities must not lead back to the old result.
		check(graph(23, false), 2, "src")
	})
}

func TestBuildsThatIgnoreTheCacheShareNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.end()
		for range 2 {
			b, _ := w.build()
			v := ignoringCache(w.vertex("tick", 1))
			go func() {
				w.wantValue(b, v, 1)
				w.close(b)
			}()
		}
		synctest.Wait()
		w.wantRuns("tick", "tick")
	})
}

func TestLostInputsAreMadeAgain(t *testing.T) {
	for _, selective := range []bool{false, true} {
		t.Run(fmt.Sprintf("selective %v", selective), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				defer w.end()
				graph := func(top string) *solver.Vertex {
					in := w.vertex("in", 3, w.vertex("deep", 10))
					v := w.vertex(top, 0, in)
					if selective {
						v = reading(v, 10)
					}
					return v
				}
				b, _ := w.build()
				v := graph("one")
				if err := b.Evaluate(t.Context(), edge(v), v.Inputs[0]); err != nil {
					t.Fatal(err)
				}
				w.wantRuns("deep", "in", "one")
				r, err := b.Result(t.Context(), v.Inputs[0])
				if err != nil {
					t.Fatal(err)
				}
				*r.(*number).lost = true
				if err := r.Release(); err != nil {
					t.Error(err)
				}
				w.close(b)

				b, _ = w.build()
				other, _ := w.build()
				x, y := graph("two"), graph("two")
				want := map[bool]int{false: 13, true: 3}[selective]
				go w.wantValue(other, y, want)
				w.wantValue(b, x, want)
				synctest.Wait()
				w.wantRuns("in", "two")
				w.close(b)
				w.close(other)
			})
		})
	}
}

func TestWhatIsLostForGoodFailsInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.end()
		v := with(w.vertex("top", 0, w.vertex("in", 1)), func(o *op) {
			o.run = func(context.Context, solver.Call, []int) ([]int, error) {
				return nil, &solver.LostError{Input: 0, Err: errors.New("gone again")}
			}
		})
		b, _ := w.build()
		_, err := b.Result(t.Context(), edge(v))
		var lost *solver.LostError
		var at *solver.VertexError
		if !errors.As(err, &lost) || !errors.As(err, &at) || at.Vertex != v {
			t.Errorf("got %v", err)
		}
		if runs := w.ran(); runs["top"] != 4 || runs["in"] != 4 {
			t.Errorf("ran %v, want each 4 times", runs)
		}
		w.close(b)
	})
}

func TestRewind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.end()
		b, _ := w.build()
		v := w.vertex("v", 1)
		w.wantValue(b, v, 1)
		if err := b.Rewind(t.Context(), edge(v), errors.New("unreadable")); err != nil {
			t.Fatal(err)
		}
		w.wantValue(b, v, 1)
		w.wantRuns("v", "v")
		w.close(b)
	})
}

// lend is an op that works only with one lender.
func lend(w *world, good string, known bool) *solver.Vertex {
	return with(w.vertex("pull", 1), func(o *op) {
		o.run = func(_ context.Context, call solver.Call, _ []int) ([]int, error) {
			for _, l := range call.Lenders() {
				if l == good {
					continue
				}
				e := &solver.LenderError{Err: errors.New("access denied")}
				if known {
					e.Lender = l
				}
				return nil, e
			}
			return []int{1}, nil
		}
	})
}

func TestOneLendersFaultFailsNobodyElse(t *testing.T) {
	for _, known := range []bool{false, true} {
		t.Run(fmt.Sprintf("known %v", known), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				defer w.end()
				good, _ := w.build(lender("good"))
				bad, _ := w.build(lender("bad"))
				gate := make(chan struct{})
				hold := func(v *solver.Vertex) *solver.Vertex {
					return with(v, func(o *op) {
						run := o.run
						o.run = func(ctx context.Context, call solver.Call, in []int) ([]int, error) {
							<-gate
							return run(ctx, call, in)
						}
					})
				}
				v, u := hold(lend(w, "good", known)), hold(lend(w, "good", known))
				errs := make(chan error, 1)
				go func() {
					_, err := w.value(t.Context(), bad, v)
					errs <- err
				}()
				done := make(chan struct{})
				go func() {
					w.wantValue(good, u, 1)
					close(done)
				}()
				synctest.Wait()
				close(gate)
				// When it is not known whose fault it was, each tries alone, and may find what the other has made by then.
				var blame *solver.LenderError
				if err := <-errs; !errors.As(err, &blame) && (known || err != nil) {
					t.Errorf("the build at fault got %v", err)
				}
				<-done
				w.close(good)
				w.close(bad)
			})
		})
	}
}
