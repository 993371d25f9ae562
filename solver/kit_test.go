package solver_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/memstore"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// world is where ops that add numbers live: it counts runs and holds, and notices when one key runs twice at once.
type world struct {
	t      *testing.T
	store  *memstore.Store
	solver *solver.Solver

	mu      sync.Mutex
	runs    map[string]int // by op
	digests int
	active  map[string]int // by op and values of its inputs
	live    int            // holds
	ops     int            // that are not closed

	losing func(n int) bool // whether the bytes of a new number get lost; may be nil
}

// newWorld makes a solver on an empty store; end must be called in the end. wrap may decorate the store.
func newWorld(t *testing.T, wrap ...func(solver.Store) solver.Store) *world {
	w := &world{t: t, store: memstore.New(), runs: map[string]int{}, active: map[string]int{}}
	var store solver.Store = w.store
	for _, f := range wrap {
		store = f(store)
	}
	w.solver = solver.New(solver.Options{Store: store})
	return w
}

// end closes everything and checks that nothing is left.
func (w *world) end() {
	w.t.Helper()
	if err := w.solver.Close(context.Background()); err != nil {
		w.t.Errorf("close solver: %v", err)
	}
	if err := w.store.Close(); err != nil {
		w.t.Errorf("close store: %v", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.live != 0 {
		w.t.Errorf("%d holds on results are left", w.live)
	}
	if w.ops != 0 {
		w.t.Errorf("%d ops are left open", w.ops)
	}
}

func (w *world) build(opts ...func(*solver.BuildOptions)) (*solver.Build, *progress.Memory) {
	sink := &progress.Memory{}
	o := solver.BuildOptions{ID: "test", Sink: sink}
	for _, f := range opts {
		f(&o)
	}
	return w.solver.NewBuild(o), sink
}

func lender(l any) func(*solver.BuildOptions) { return func(o *solver.BuildOptions) { o.Lender = l } }

// ran returns how often each op ran since it was last asked.
func (w *world) ran() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	runs := w.runs
	w.runs = map[string]int{}
	return runs
}

// wantRuns checks which ops ran since the last check, each once.
func (w *world) wantRuns(names ...string) {
	w.t.Helper()
	got := w.ran()
	var list []string
	for name, n := range got {
		for range n {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	slices.Sort(names)
	if !slices.Equal(list, names) {
		w.t.Errorf("ran %v, want %v", list, names)
	}
}

// number is a result.
type number struct {
	w        *world
	n        int
	lost     *bool // the bytes behind it
	mu       sync.Mutex
	released bool
}

func (w *world) number(n int) *number {
	lost := w.losing != nil && w.losing(n)
	return w.hold(n, &lost)
}

func (w *world) hold(n int, lost *bool) *number {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.live++
	return &number{w: w, n: n, lost: lost}
}

func (r *number) alive() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.released {
		r.w.t.Errorf("number %d is used after its release", r.n)
	}
}

func (r *number) Clone() solver.Result {
	r.alive()
	return r.w.hold(r.n, r.lost)
}

func (r *number) Release() error {
	r.alive()
	r.mu.Lock()
	r.released = true
	r.mu.Unlock()
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.w.live--
	return nil
}

func (r *number) value() int { r.alive(); return r.n }

// op gives the sum of its inputs and add, or what run says.
type op struct {
	w      *world
	name   string // in the key
	add    int
	pin    func(ctx context.Context, call solver.Call) (string, error) // of a source
	run    func(ctx context.Context, call solver.Call, in []int) ([]int, error)
	reads  map[int]solver.Selector
	closed bool
}

func (o *op) Key(ctx context.Context, call solver.Call) (solver.Parts, error) {
	parts := solver.Parts{{Name: "op", Value: o.name}, {Name: "add", Value: strconv.Itoa(o.add)}}
	if o.pin == nil {
		return parts, nil
	}
	v, err := o.pin(ctx, call)
	return append(parts, solver.Part{Name: "pin", Value: v}), err
}

func (o *op) Selector(i int) solver.Selector {
	if s, ok := o.reads[i]; ok {
		return s
	}
	return nil
}

func (o *op) Run(ctx context.Context, call solver.Call, inputs []solver.Result) ([]solver.Result, error) {
	in := make([]int, len(inputs))
	for i, r := range inputs {
		if r == nil {
			continue
		}
		if *r.(*number).lost {
			return nil, fmt.Errorf("reading: %w", &solver.LostError{Input: i, Err: errors.New("bytes are gone")})
		}
		in[i] = r.(*number).value()
	}
	key := fmt.Sprint(o.name, o.add, in)
	o.w.mu.Lock()
	o.w.runs[o.name]++
	o.w.active[key]++
	if o.closed {
		o.w.t.Errorf("%s runs though it is closed", o.name)
	}
	o.w.mu.Unlock()
	defer func() {
		o.w.mu.Lock()
		defer o.w.mu.Unlock()
		o.w.active[key]--
	}()
	out, err := []int{o.add}, error(nil)
	if o.run != nil {
		out, err = o.run(ctx, call, in)
	} else {
		for _, n := range in {
			out[0] += n
		}
	}
	if err != nil {
		return nil, err
	}
	results := make([]solver.Result, len(out))
	for i, n := range out {
		results[i] = o.w.number(n)
	}
	return results, nil
}

func (o *op) Close() error {
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	if o.closed {
		o.w.t.Errorf("%s is closed twice", o.name)
	}
	o.closed = true
	o.w.ops--
	return nil
}

// modulo reads of a number only what is left when it is divided.
type modulo int

func (m modulo) Key() string { return fmt.Sprintf("modulo %d", int(m)) }

func (m modulo) Digest(_ context.Context, _ solver.Call, r solver.Result) (digest.Digest, error) {
	n := r.(*number)
	n.w.mu.Lock()
	n.w.digests++
	n.w.mu.Unlock()
	if *n.lost {
		return "", &solver.LostError{Err: errors.New("bytes are gone")}
	}
	return digest.FromString(strconv.Itoa(n.value() % int(m))), nil
}

// vertex makes a step. Its id is made of its name and inputs, as a definition's would be.
func (w *world) vertex(name string, add int, inputs ...*solver.Vertex) *solver.Vertex {
	v := &solver.Vertex{Name: name, Op: w.op(name, add)}
	id := name
	for _, in := range inputs {
		v.Inputs = append(v.Inputs, solver.Edge{Vertex: in})
		id += "," + in.ID.String()
	}
	v.ID = digest.FromString(id)
	return v
}

func (w *world) op(name string, add int) *op {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ops++
	return &op{w: w, name: name, add: add}
}

// with changes the op of a fresh vertex.
func with(v *solver.Vertex, f func(o *op)) *solver.Vertex {
	f(v.Op.(*op))
	return v
}

func ignoringCache(v *solver.Vertex) *solver.Vertex {
	v.IgnoreCache = true
	return v
}

// reading makes v read its inputs modulo m.
func reading(v *solver.Vertex, m int) *solver.Vertex {
	return with(v, func(o *op) {
		o.reads = map[int]solver.Selector{}
		for i := range v.Inputs {
			o.reads[i] = modulo(m)
		}
		o.run = func(_ context.Context, _ solver.Call, in []int) ([]int, error) {
			sum := o.add
			for _, n := range in {
				sum += n % m
			}
			return []int{sum}, nil
		}
	})
}

func edge(v *solver.Vertex) solver.Edge { return solver.Edge{Vertex: v} }

// value asks b for v's number.
func (w *world) value(ctx context.Context, b *solver.Build, v *solver.Vertex) (int, error) {
	r, err := b.Result(ctx, edge(v))
	if err != nil {
		return 0, err
	}
	n := r.(*number).value()
	return n, r.Release()
}

func (w *world) wantValue(b *solver.Build, v *solver.Vertex, want int) {
	w.t.Helper()
	got, err := w.value(context.Background(), b, v)
	if err != nil || got != want {
		w.t.Errorf("%s = %d, %v; want %d", v.Name, got, err, want)
	}
}

func (w *world) close(b *solver.Build) {
	w.t.Helper()
	if err := b.Close(); err != nil {
		w.t.Errorf("close build: %v", err)
	}
}

// steps returns the last state of each step by name, and the text of its output.
func steps(sink *progress.Memory) (last map[string]*progress.Vertex, logs map[string]string) {
	last, logs = map[string]*progress.Vertex{}, map[string]string{}
	names := map[digest.Digest]string{}
	for _, ev := range sink.Events() {
		switch {
		case ev.Vertex != nil:
			last[ev.Vertex.Name] = ev.Vertex
			names[ev.Vertex.ID] = ev.Vertex.Name
		case ev.Log != nil:
			logs[names[ev.Log.Vertex]] += string(ev.Log.Data)
		}
	}
	return last, logs
}
