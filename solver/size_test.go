package solver_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/memstore"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// chain is n steps one after another.
func (w *world) chain(n int) *solver.Vertex {
	v := w.vertex("0", 1)
	for i := 1; i < n; i++ {
		v = w.vertex(fmt.Sprint(i), 1, v)
	}
	return v
}

// braid is a chain in which each step also reads the first, selectively.
func (w *world) braid(n int) *solver.Vertex {
	first := w.vertex("first", 0)
	v := first
	for i := 1; i < n; i++ {
		v = w.vertex(fmt.Sprint(i), 1, v, first)
		with(v, func(o *op) { o.reads = map[int]solver.Selector{1: modulo(10)} })
	}
	return v
}

// fan is one step that n others read, and one that reads all of those.
func (w *world) fan(n int) *solver.Vertex {
	first := w.vertex("first", 0)
	all := make([]*solver.Vertex, n)
	for i := range all {
		all[i] = w.vertex(fmt.Sprint(i), 1, first)
	}
	return w.vertex("all", 0, all...)
}

func TestLargeGraphs(t *testing.T) {
	for _, c := range []struct {
		name  string
		graph func(w *world) *solver.Vertex
		want  int
		runs  int
	}{
		{"a chain of 10,000", func(w *world) *solver.Vertex { return w.chain(10_000) }, 10_000, 10_000},
		{"a braid of 1,500", func(w *world) *solver.Vertex { return w.braid(1_500) }, 1_499, 1_500},
		{"a fan of 1,000", func(w *world) *solver.Vertex { return w.fan(1_000) }, 1_000, 1_002},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				defer w.end()
				for _, want := range []int{c.runs, 0} {
					b, sink := w.build()
					w.wantValue(b, c.graph(w), c.want)
					runs := 0
					for _, n := range w.ran() {
						runs += n
					}
					if runs != want {
						t.Errorf("%d runs, want %d", runs, want)
					}
					w.close(b)
					if last, _ := steps(sink); len(last) != c.runs {
						t.Errorf("%d steps are shown, want %d", len(last), c.runs)
					}
				}
			})
		})
	}
}

func TestALongChainIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.end()
		stuck := with(w.vertex("stuck", 1), func(o *op) {
			o.run = func(ctx context.Context, _ solver.Call, _ []int) ([]int, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
		})
		v := stuck
		for i := range 10_000 {
			v = w.vertex(fmt.Sprint(i), 1, v)
		}
		b, _ := w.build()
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _, _ = b.Result(ctx, edge(v)) }()
		synctest.Wait()
		cancel()
		synctest.Wait()
		w.wantRuns("stuck")
		w.close(b)
	})
}

// free is an op without bookkeeping, to measure the solver by.
type free struct{ parts solver.Parts }

func (o free) Key(context.Context, solver.Call) (solver.Parts, error) { return o.parts, nil }
func (o free) Selector(int) solver.Selector                           { return nil }
func (o free) Run(context.Context, solver.Call, []solver.Result) ([]solver.Result, error) {
	return []solver.Result{nil}, nil
}

func freeVertex(i int, inputs ...*solver.Vertex) *solver.Vertex {
	name := fmt.Sprint(i)
	v := &solver.Vertex{Name: name, ID: digest.FromString(name), Op: free{solver.Parts{{Name: "op", Value: name}}}}
	for _, in := range inputs {
		v.Inputs = append(v.Inputs, edge(in))
	}
	return v
}

func freeChain(n int) *solver.Vertex {
	v := freeVertex(0)
	for i := 1; i < n; i++ {
		v = freeVertex(i, v)
	}
	return v
}

func freeFan(n int) *solver.Vertex {
	first := freeVertex(0)
	all := make([]*solver.Vertex, n)
	for i := range all {
		all[i] = freeVertex(i+1, first)
	}
	return freeVertex(n+1, all...)
}

func BenchmarkSolve(b *testing.B) {
	for _, shape := range []struct {
		name string
		make func(n int) *solver.Vertex
	}{{"chain", freeChain}, {"fan", freeFan}} {
		for _, n := range []int{10, 1_000, 10_000} {
			v := shape.make(n)
			b.Run(fmt.Sprintf("%s/%d/cold", shape.name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					s := solver.New(solver.Options{Store: memstore.New()})
					solve(b, s, v)
					closeSolver(b, s)
				}
			})
			b.Run(fmt.Sprintf("%s/%d/warm", shape.name, n), func(b *testing.B) {
				b.ReportAllocs()
				s := solver.New(solver.Options{Store: memstore.New()})
				defer closeSolver(b, s)
				solve(b, s, v)
				for b.Loop() {
					solve(b, s, v)
				}
			})
		}
	}
}

func solve(b *testing.B, s *solver.Solver, v *solver.Vertex) {
	build := s.NewBuild(solver.BuildOptions{Sink: progress.Discard})
	if err := build.Evaluate(context.Background(), edge(v)); err != nil {
		b.Fatal(err)
	}
	if err := build.Close(); err != nil {
		b.Fatal(err)
	}
}

func closeSolver(b *testing.B, s *solver.Solver) {
	if err := s.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkKey(b *testing.B) {
	for _, n := range []int{1, 10, 100} {
		var parts solver.Parts
		for i := range n {
			parts = append(parts, solver.Part{Name: fmt.Sprintf("input.%d.identity", i), Value: solver.Identity{byte(i)}.String()})
		}
		b.Run(fmt.Sprintf("%d parts", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				parts.Sum("identity")
			}
		})
	}
}
