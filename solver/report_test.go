package solver_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// traces returns the look-ups of a step in short: its kind, and a plus for a hit.
func traces(sink *progress.Memory, v *solver.Vertex) []string {
	var all []string
	for _, ev := range sink.Events() {
		if tr := ev.Trace; tr != nil && tr.Vertex == v.ID {
			hit := "-"
			if tr.Hit {
				hit = "+"
			}
			all = append(all, tr.Kind+hit)
		}
	}
	return all
}

func TestEveryLookUpLeavesATrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.end()
		graph := func(src int) *solver.Vertex { return reading(w.vertex("copy", 0, w.vertex("src", src)), 10) }
		for _, c := range []struct {
			src  int
			want []string
		}{
			{13, []string{"promise-", "content-", "identity-"}},
			{13, []string{"promise+", "identity+"}},
			{23, []string{"promise-", "content-", "identity+"}},
		} {
			b, sink := w.build()
			v := graph(c.src)
			w.wantValue(b, v, 3)
			w.close(b)
			if got := traces(sink, v); !slices.Equal(got, c.want) {
				t.Errorf("with src %d the traces are %v, want %v", c.src, got, c.want)
			}
		}
		for _, rec := range w.store.Records() {
			if len(rec.PromiseKey) == 0 || len(rec.IdentityKey) == 0 || rec.Step == "" {
				t.Errorf("a record cannot be explained: %+v", rec)
			}
		}
	})
}

func TestHiddenStepsAreNotSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.end()
		for range 2 {
			b, sink := w.build()
			in := with(w.vertex("in", 1), func(o *op) {
				o.run = func(_ context.Context, call solver.Call, _ []int) ([]int, error) {
					call.Progress().Log(progress.Stdout, []byte("secretly"))
					return []int{1}, nil
				}
			})
			in.Hidden = true
			v := w.vertex("top", 1, in)
			w.wantValue(b, v, 2)
			w.close(b)
			for _, ev := range sink.Events() {
				if s := ev.Vertex; ev.Log != nil || s != nil && (s.ID != v.ID || len(s.Inputs) > 0) {
					t.Errorf("a viewer sees %+v", ev)
				}
			}
		}
	})
}

func TestAStepSeenTwiceIsShownOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.end()
		b, sink := w.build()
		for range 2 { // two definitions of one build hold the same step
			w.wantValue(b, w.vertex("top", 1, w.vertex("in", 1)), 2)
		}
		w.close(b)
		last, _ := steps(sink)
		for name, v := range last {
			if v.Cached || v.Completed == nil {
				t.Errorf("%s is shown as %+v though it ran in this build", name, v)
			}
		}
		seen := map[string]int{}
		for _, ev := range sink.Events() {
			if ev.Vertex != nil {
				seen[ev.Vertex.Name]++
			}
		}
		if seen["top"] != 2 || seen["in"] != 2 {
			t.Errorf("states are written %v times, want started and completed once each", seen)
		}
	})
}

func TestPinningIsSeenAndThenCached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.end()
		for i := range 2 {
			b, sink := w.build(lender("me"))
			src := with(w.vertex("src", 1), func(o *op) {
				o.pin = func(_ context.Context, call solver.Call) (string, error) {
					call.Progress().Status(progress.Status{ID: "transferring context"})
					return fmt.Sprint(call.Lenders()), nil
				}
			})
			w.wantValue(b, w.vertex("top", 1, src), 2)
			w.close(b)
			last, _ := steps(sink)
			if v := last["src"]; v == nil || v.Started == nil || v.Completed == nil || v.Cached != (i == 1) {
				t.Errorf("build %d shows %+v", i, v)
			}
		}
	})
}

func TestLongOutputReachesWhoJoinsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.end()
		line := []byte(strings.Repeat("x", 999) + "\n")
		const lines = 3_000
		gate := make(chan struct{})
		graph := func() *solver.Vertex {
			return with(w.vertex("chatty", 1), func(o *op) {
				o.run = func(_ context.Context, call solver.Call, _ []int) ([]int, error) {
					out := progress.LogWriter(call.Progress(), progress.Stdout)
					for range lines {
						if _, err := out.Write(line); err != nil {
							return nil, err
						}
					}
					<-gate
					_, err := out.Write([]byte("end"))
					return []int{1}, err
				}
			})
		}
		var sinks []*progress.Memory
		for range 3 {
			b, sink := w.build()
			sinks = append(sinks, sink)
			v := graph()
			go func() {
				w.wantValue(b, v, 1)
				w.close(b)
			}()
			synctest.Wait()
		}
		close(gate)
		synctest.Wait()
		w.wantRuns("chatty")
		for i, sink := range sinks {
			_, logs := steps(sink)
			if got := logs["chatty"]; len(got) != lines*len(line)+3 || !strings.HasSuffix(got, "\nend") {
				t.Errorf("viewer %d sees %d bytes, want %d", i, len(got), lines*len(line)+3)
			}
		}
	})
}
