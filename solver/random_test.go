package solver_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver"
)

// spec is one step of a random graph as plain data, from which every build makes vertices of its own.
type spec struct {
	name   string
	add    int
	inputs []int // earlier specs
	modulo []int // of each input; 0 reads it whole
	fails  bool
	takes  time.Duration
	ignore bool
}

// randomSpecs makes a graph in which equal work is likely to meet: few names, small numbers.
func randomSpecs(r *rand.Rand, n int) []spec {
	specs := make([]spec, n)
	for i := range specs {
		s := spec{name: fmt.Sprint("op", r.IntN(6)), add: r.IntN(3), takes: time.Duration(r.IntN(5)) * time.Second}
		for range min(i, r.IntN(4)) {
			s.inputs = append(s.inputs, max(0, i-1-r.IntN(6)))
			s.modulo = append(s.modulo, []int{0, 0, 2, 3}[r.IntN(4)])
		}
		specs[i] = s
	}
	return specs
}

// answer is what the oracle says of a step.
type answer struct {
	value  int
	id     string // equal for equal work
	failed bool
}

// oracle evaluates one step after another: it is the specification.
func oracle(specs []spec) []answer {
	answers := make([]answer, len(specs))
	for i, s := range specs {
		a := answer{value: s.add, failed: s.fails, id: fmt.Sprint(s.name, s.add, s.fails)}
		for at, in := range s.inputs {
			from := answers[in]
			a.failed = a.failed || from.failed
			if m := s.modulo[at]; m > 0 {
				a.value += from.value % m
				a.id += fmt.Sprintf("(%d of %d)", from.value%m, m)
			} else {
				a.value += from.value
				a.id += "(" + from.id + ")"
			}
		}
		a.id = digest.FromString(a.id).Encoded()[:12]
		answers[i] = a
	}
	return answers
}

// lab runs random graphs and watches which work is done.
type lab struct {
	*world
	mu     sync.Mutex
	rand   *rand.Rand
	runs   map[string]int                  // by the oracle's id
	active map[string]map[solver.Call]bool // those under way
	lax    bool                            // equal work may have reasons to run twice at once
}

func newLab(t *testing.T, r *rand.Rand, wrap ...func(solver.Store) solver.Store) *lab {
	return &lab{world: newWorld(t, wrap...), rand: r, runs: map[string]int{}, active: map[string]map[solver.Call]bool{}}
}

// vertices makes the graph for one build.
func (l *lab) vertices(specs []spec, answers []answer) []*solver.Vertex {
	all := make([]*solver.Vertex, len(specs))
	for i, s := range specs {
		v := &solver.Vertex{Name: fmt.Sprint(i, " ", s.name), ID: digest.FromString(fmt.Sprint(i)), IgnoreCache: s.ignore}
		for _, in := range s.inputs {
			v.Inputs = append(v.Inputs, edge(all[in]))
		}
		o := l.op(s.name, s.add)
		o.reads = map[int]solver.Selector{}
		for at, m := range s.modulo {
			if m > 0 {
				o.reads[at] = modulo(m)
			}
		}
		o.add = s.add
		o.run = l.runner(s, answers[i].id)
		v.Op = &watched{op: o, parts: fmt.Sprint(s.modulo, s.fails)}
		all[i] = v
	}
	return all
}

// watched has what it reads in its key, as every op must.
type watched struct {
	*op
	parts string
}

func (w *watched) Key(ctx context.Context, call solver.Call) (solver.Parts, error) {
	parts, err := w.op.Key(ctx, call)
	return append(parts, solver.Part{Name: "reads", Value: w.parts}), err
}

func (l *lab) runner(s spec, id string) func(context.Context, solver.Call, []int) ([]int, error) {
	return func(ctx context.Context, call solver.Call, in []int) ([]int, error) {
		defer l.begin(id, call)()
		select {
		case <-time.After(s.takes):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if s.fails {
			return nil, errors.New("this one fails")
		}
		sum := s.add
		for at, n := range in {
			if m := s.modulo[at]; m > 0 {
				n %= m
			}
			sum += n
		}
		return []int{sum}, nil
	}
}

// begin counts a run, which must be the only one of its kind that anybody waits for.
func (l *lab) begin(id string, call solver.Call) (end func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for other := range l.active[id] {
		if !l.lax && len(other.Lenders()) > 0 {
			l.t.Errorf("%s runs twice at once, and somebody waits for each", id)
		}
	}
	if l.active[id] == nil {
		l.active[id] = map[solver.Call]bool{}
	}
	l.active[id][call] = true
	l.runs[id]++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.active[id], call)
	}
}

// seeds runs f for many seeds in bubbles of their own, and says which one fails.
func seeds(t *testing.T, n int, f func(t *testing.T, r *rand.Rand)) {
	first := uint64(time.Now().UnixNano())
	for i := range uint64(n) {
		synctest.Test(t, func(t *testing.T) {
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("failed with seed (%d, %d)", first, i)
				}
			})
			f(t, rand.New(rand.NewPCG(first, i)))
		})
	}
}

func TestRandomGraphsRunEachWorkOnce(t *testing.T) {
	seeds(t, 60, func(t *testing.T, r *rand.Rand) {
		l := newLab(t, r)
		defer l.end()
		specs := randomSpecs(r, 2+r.IntN(30))
		answers := oracle(specs)
		var builds sync.WaitGroup
		for range 1 + r.IntN(4) {
			b, _ := l.build(lender(new(int)))
			all := l.vertices(specs, answers)
			wait := time.Duration(r.IntN(8)) * time.Second
			builds.Go(func() {
				time.Sleep(wait)
				for i := len(all) - 1; i >= 0; i -= 3 {
					l.wantValue(b, all[i], answers[i].value)
				}
				for i, v := range all {
					l.wantValue(b, v, answers[i].value)
				}
				l.close(b)
			})
		}
		builds.Wait()
		for i, a := range answers {
			if n := l.runs[a.id]; n != 1 {
				t.Errorf("the work of step %d ran %d times", i, n)
			}
		}
		clear(l.runs)
		b, _ := l.build(lender(new(int)))
		all := l.vertices(specs, answers)
		for i, v := range all {
			l.wantValue(b, v, answers[i].value)
		}
		l.close(b)
		if len(l.runs) > 0 {
			t.Errorf("a warm build runs %v", l.runs)
		}
	})
}

// TestRandomGraphsInTrouble has steps that fail, clients that leave, bytes that get lost, steps that ignore the cache, and a
// cache that fails at random. What is answered must be right all the same.
func TestRandomGraphsInTrouble(t *testing.T) {
	seeds(t, 120, func(t *testing.T, r *rand.Rand) {
		lax, faults := r.IntN(2) == 0, 0
		if lax {
			faults = 20 * r.IntN(2)
		}
		l := newLab(t, r, faulty(rand.New(rand.NewPCG(r.Uint64(), 0)), faults))
		l.lax = lax
		defer l.end()
		if r.IntN(2) == 0 {
			l.world.losing = losing(rand.New(rand.NewPCG(r.Uint64(), 0)))
		}
		specs := randomSpecs(r, 2+r.IntN(25))
		for i := range specs {
			specs[i].fails = r.IntN(40) == 0
			specs[i].ignore = lax && r.IntN(20) == 0
		}
		answers := oracle(specs)
		var builds sync.WaitGroup
		for range 2 + r.IntN(5) {
			b, _ := l.build(lender(new(int)))
			all := l.vertices(specs, answers)
			patience := time.Duration(r.IntN(20)) * time.Second
			wait := time.Duration(r.IntN(8)) * time.Second
			targets := r.Perm(len(all))[:1+r.IntN(len(all))]
			l.introduce(b, all)
			builds.Go(func() {
				time.Sleep(wait)
				var clients sync.WaitGroup
				for at, i := range targets {
					clients.Go(func() { l.client(b, all[i], answers[i], patience*time.Duration(at%3)) })
				}
				clients.Wait()
				l.close(b)
			})
		}
		builds.Wait()
	})
}

// introduce makes all steps known to b, so that it closes their ops, and asks for nothing.
func (l *lab) introduce(b *solver.Build, all []*solver.Vertex) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, v := range all {
		if err := b.Evaluate(ctx, edge(v)); !errors.Is(err, context.Canceled) {
			l.t.Errorf("asking with a context that ended gives %v", err)
		}
	}
}

// client asks for v and leaves when its patience ends; none is endless patience.
func (l *lab) client(b *solver.Build, v *solver.Vertex, want answer, patience time.Duration) {
	ctx := context.Background()
	if patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	got, err := l.value(ctx, b, v)
	var at *solver.VertexError
	switch {
	case err == nil && (want.failed || got != want.value):
		l.t.Errorf("%s = %d, want %+v", v.Name, got, want)
	case err == nil:
	case ctx.Err() != nil:
	case !want.failed || !errors.As(err, &at):
		l.t.Errorf("%s fails: %v", v.Name, err)
	}
}

// losing makes the bytes of some results get lost; of so few that no step runs out of attempts.
func losing(r *rand.Rand) func(n int) bool {
	var mu sync.Mutex
	left := 3
	return func(int) bool {
		mu.Lock()
		defer mu.Unlock()
		if left == 0 || r.IntN(10) > 0 {
			return false
		}
		left--
		return true
	}
}

// faulty wraps a store that fails percent times in a hundred.
func faulty(r *rand.Rand, percent int) func(solver.Store) solver.Store {
	return func(s solver.Store) solver.Store { return &faultyStore{Store: s, r: r, percent: percent} }
}

type faultyStore struct {
	solver.Store
	mu      sync.Mutex
	r       *rand.Rand
	percent int
}

var errFault = errors.New("disk on fire")

func (s *faultyStore) fails() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.r.IntN(100) < s.percent {
		return errFault
	}
	return nil
}

func (s *faultyStore) Alias(ctx context.Context, p solver.Promise) (solver.Identity, bool, error) {
	if err := s.fails(); err != nil {
		return solver.Identity{}, false, err
	}
	return s.Store.Alias(ctx, p)
}

func (s *faultyStore) PutAlias(ctx context.Context, p solver.Promise, i solver.Identity) error {
	if err := s.fails(); err != nil {
		return err
	}
	return s.Store.PutAlias(ctx, p, i)
}

func (s *faultyStore) Results(ctx context.Context, i solver.Identity) ([]solver.Result, bool, error) {
	if err := s.fails(); err != nil {
		return nil, false, err
	}
	return s.Store.Results(ctx, i)
}

func (s *faultyStore) PutResults(ctx context.Context, i solver.Identity, rec solver.Record, results []solver.Result) error {
	if err := s.fails(); err != nil {
		return err
	}
	return s.Store.PutResults(ctx, i, rec, results)
}

func (s *faultyStore) Forget(ctx context.Context, i solver.Identity) error {
	if err := s.fails(); err != nil {
		return err
	}
	return s.Store.Forget(ctx, i)
}

func (s *faultyStore) Content(ctx context.Context, i solver.Identity, output int, sel string) (digest.Digest, bool, error) {
	if err := s.fails(); err != nil {
		return "", false, err
	}
	return s.Store.Content(ctx, i, output, sel)
}

func (s *faultyStore) PutContent(ctx context.Context, i solver.Identity, output int, sel string, d digest.Digest) error {
	if err := s.fails(); err != nil {
		return err
	}
	return s.Store.PutContent(ctx, i, output, sel, d)
}

func TestACacheThatAlwaysFailsCostsOnlyTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, faulty(rand.New(rand.NewPCG(1, 1)), 100))
		defer w.end()
		for range 2 {
			b, sink := w.build()
			w.wantValue(b, w.ab(), 4)
			w.wantRuns("a", "b", "c", "d")
			// What the build has it need not ask for twice.
			w.wantValue(b, w.ab(), 4)
			w.wantRuns()
			w.close(b)
			reasons := map[string]int{}
			for _, ev := range sink.Events() {
				if ev.Trace != nil && !ev.Trace.Hit {
					reasons[ev.Trace.Reason]++
				}
			}
			if reasons["cache fault: disk on fire"] == 0 {
				t.Errorf("traces give the reasons %v", reasons)
			}
		}
	})
}
