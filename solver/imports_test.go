package solver_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver"
)

// shelf is a cache of another machine: what its build knew of its steps, as numbers of the machine that imports it.
type shelf struct {
	w        *world
	aliases  map[solver.Promise]solver.Identity
	numbers  map[solver.Identity][]int
	contents map[solver.Identity][]solver.Content
	lost     bool  // the bytes of all results
	fault    error // of all look-ups
	asked    int   // for results
}

// export puts on a shelf of w what b knows of v and the steps before it.
func (w *world) export(b *solver.Build, v *solver.Vertex) *shelf {
	w.t.Helper()
	steps, err := b.Known(context.Background(), edge(v))
	if err != nil {
		w.t.Fatalf("Known: %v", err)
	}
	s := &shelf{aliases: map[solver.Promise]solver.Identity{}, numbers: map[solver.Identity][]int{}, contents: map[solver.Identity][]solver.Content{}}
	for _, step := range steps {
		for _, p := range step.Promises {
			s.aliases[p] = step.Identity
		}
		for _, r := range step.Results {
			s.numbers[step.Identity] = append(s.numbers[step.Identity], r.(*number).value())
		}
		s.contents[step.Identity] = step.Contents
	}
	return s
}

// at is the shelf as another machine sees it.
func (s *shelf) at(w *world) *shelf {
	c := *s
	c.w = w
	return &c
}

func (s *shelf) Alias(_ context.Context, p solver.Promise) (solver.Identity, bool, error) {
	id, ok := s.aliases[p]
	return id, ok && s.fault == nil, s.fault
}

func (s *shelf) Results(_ context.Context, i solver.Identity) (*solver.Imported, bool, error) {
	s.asked++
	numbers, ok := s.numbers[i]
	if !ok || s.fault != nil {
		return nil, false, s.fault
	}
	imp := &solver.Imported{Contents: s.contents[i]}
	for _, n := range numbers {
		lost := s.lost
		imp.Results = append(imp.Results, s.w.hold(n, &lost))
	}
	return imp, true, nil
}

func (s *shelf) Content(_ context.Context, i solver.Identity, output int, selector string) (digest.Digest, bool, error) {
	for _, c := range s.contents[i] {
		if c.Output == output && c.Selector == selector {
			return c.Digest, true, nil
		}
	}
	return "", false, s.fault
}

func importing(s *shelf) func(*solver.BuildOptions) {
	return func(o *solver.BuildOptions) { o.Imports = s }
}

// project is a source, a step that reads the whole of it, and one that reads only a part of that.
func (w *world) project(source int) (a, b, c *solver.Vertex) {
	a = w.vertex("a", source)
	b = w.vertex("b", 10, a)
	c = reading(w.vertex("c", 100, b), 10)
	return a, b, c
}

// elsewhere builds the project on another machine and returns what it exports.
func elsewhere(t *testing.T) *shelf {
	t.Helper()
	w := newWorld(t)
	defer w.end()
	build, _ := w.build()
	_, _, c := w.project(1)
	w.wantValue(build, c, 101)
	s := w.export(build, c)
	w.close(build)
	// What is exported once more by one who had all of it from the cache is the same.
	again, _ := w.build()
	_, _, c = w.project(1)
	w.ran()
	w.wantValue(again, c, 101)
	if warm := w.export(again, c); len(warm.numbers) != len(s.numbers) || len(warm.aliases) != len(s.aliases) {
		t.Errorf("a warm build knows %d of %d steps", len(warm.numbers), len(s.numbers))
	}
	w.wantRuns()
	w.close(again)
	return s
}

func TestImportedResultsAreUsedAndKept(t *testing.T) {
	s := elsewhere(t)
	w := newWorld(t)
	defer w.end()
	build, _ := w.build(importing(s.at(w)))
	_, _, c := w.project(1)
	w.wantValue(build, c, 101)
	w.close(build)
	later, _ := w.build()
	_, _, c = w.project(1)
	w.wantValue(later, c, 101)
	w.close(later)
	w.wantRuns()
	if w.digests != 0 {
		t.Errorf("%d digests were taken", w.digests)
	}
}

func TestImportedContentCutsOff(t *testing.T) {
	s := elsewhere(t)
	w := newWorld(t)
	defer w.end()
	build, _ := w.build(importing(s.at(w)))
	// Another source, of which the last step sees the same.
	_, _, c := w.project(11)
	w.wantValue(build, c, 101)
	w.close(build)
	w.wantRuns("a", "b")
}

func TestNothingIsImportedByWhatIgnoresTheCache(t *testing.T) {
	s := elsewhere(t).at(nil)
	w := newWorld(t)
	defer w.end()
	s.w = w
	build, _ := w.build(importing(s))
	a, _, c := w.project(1)
	ignoringCache(a)
	w.wantValue(build, c, 101)
	w.close(build)
	// c sees the same of what is new, so it may be found.
	if got := w.ran(); got["a"] != 1 || got["b"] != 1 {
		t.Errorf("ran %v", got)
	}
}

func TestFaultyAndLostImportsCostTimeOnly(t *testing.T) {
	for name, spoil := range map[string]func(*shelf){
		"fault": func(s *shelf) { s.fault = errors.New("503") },
		"lost":  func(s *shelf) { s.lost = true },
	} {
		t.Run(name, func(t *testing.T) {
			s := elsewhere(t)
			w := newWorld(t)
			defer w.end()
			s = s.at(w)
			spoil(s)
			build, _ := w.build(importing(s))
			_, _, c := w.project(1)
			top := w.vertex("top", 1000, c)
			w.wantValue(build, top, 1101)
			w.close(build)
		})
	}
}

// fading is a number that can tell that it is lost.
type fading struct{ *number }

func (f fading) Lost() error {
	if *f.lost {
		return errors.New("faded")
	}
	return nil
}

func (f fading) Clone() solver.Result { return fading{f.number.Clone().(*number)} }

// TestPerishedResultsAreMadeAgain loses, while a build runs, what two steps have in common.
func TestPerishedResultsAreMadeAgain(t *testing.T) {
	w := newWorld(t)
	defer w.end()
	build, _ := w.build()
	gone := false
	runs := 0
	source := w.vertex("source", 1)
	source.Op = opOf(w, source, func() solver.Result {
		runs++
		if runs > 1 {
			gone = false
		}
		return fading{w.hold(1, &gone)}
	})
	r, err := build.Result(t.Context(), edge(source))
	if err != nil {
		t.Fatal(err)
	}
	gone = true
	again, err := build.Result(t.Context(), edge(source))
	if err != nil || runs != 2 {
		t.Errorf("%d runs, %v; want what was lost to be made again", runs, err)
	}
	if err := errors.Join(r.Release(), again.Release()); err != nil {
		t.Error(err)
	}
	w.close(build)
}

// opOf replaces the op of v by one that gives what make makes.
func opOf(w *world, v *solver.Vertex, make func() solver.Result) solver.Op {
	return &making{op: v.Op.(*op), make: make}
}

type making struct {
	*op
	make func() solver.Result
}

func (m *making) Run(context.Context, solver.Call, []solver.Result) ([]solver.Result, error) {
	return []solver.Result{m.make()}, nil
}

func TestKnownListsInputsFirst(t *testing.T) {
	w := newWorld(t)
	defer w.end()
	build, _ := w.build()
	_, _, c := w.project(1)
	if steps, err := build.Known(t.Context(), edge(c)); err != nil || len(steps) != 0 {
		t.Errorf("before anything ran: %v, %v", steps, err)
	}
	w.wantValue(build, c, 101)
	steps, err := build.Known(t.Context(), edge(c), edge(c), solver.Edge{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range steps {
		names = append(names, s.Vertex.Name)
	}
	if !slices.Equal(names, []string{"a", "b", "c"}) || len(steps[1].Contents) != 1 {
		t.Errorf("%v, contents of b: %v", names, steps[1].Contents)
	}
	w.close(build)
	if _, err := build.Known(t.Context(), edge(c)); !errors.Is(err, solver.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
