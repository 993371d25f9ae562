package ops

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/buildkit/client/llb"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/cachestore"
	"github.com/slipwaybuild/slipway/solver/executor"
	"github.com/slipwaybuild/slipway/solver/executor/fake"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"golang.org/x/sys/unix"
)

// engine is a yard with a solver and a cache on it: what a build sees.
type engine struct {
	*yard
	cache  *cachestore.Store
	solver *solver.Solver

	mu   sync.Mutex
	ran  []string // commands of steps, in the order they ran
	step fake.Func
}

// newEngine makes an engine whose commands are "write PATH DATA", "read PATH" (fails if it is not there), "rm PATH", "fail N" and
// "true". PATH begins with the destination of a mount.
func newEngine(t *testing.T) *engine {
	e := &engine{}
	e.yard = newYard(t, func(s *layers.Store) executor.Executor { return fake.New(s, e.run) })
	var err error
	if e.cache, err = cachestore.New(t.Context(), cachestore.Options{Layers: e.store}); err != nil {
		t.Fatal(err)
	}
	e.solver = solver.New(solver.Options{Store: e.cache, TempDir: t.TempDir()})
	t.Cleanup(func() {
		if err := e.solver.Close(context.Background()); err != nil {
			t.Errorf("close solver: %v", err)
		}
		if err := e.cache.Close(); err != nil {
			t.Errorf("close cache: %v", err)
		}
	})
	return e
}

func (e *engine) run(ctx context.Context, c *fake.Call) error {
	e.mu.Lock()
	e.ran = append(e.ran, strings.Join(c.Spec.Args, " "))
	step := e.step
	e.mu.Unlock()
	if step != nil {
		return step(ctx, c)
	}
	args := c.Spec.Args
	switch args[0] {
	case "write":
		return c.Write(fake.File{Entry: fstree.Entry{Path: args[1], Mode: unix.S_IFREG | 0o644, ModTime: time.Now()}, Data: []byte(args[2])})
	case "read":
		_, err := c.ReadFile(ctx, args[1])
		return err
	case "fail":
		return &executor.ExitError{Code: 3}
	}
	return nil
}

// commands returns what ran since it was asked last.
func (e *engine) commands() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	ran := e.ran
	e.ran = nil
	return ran
}

// build builds a state in a build of its own and calls check with the outcome.
func (e *engine) build(s llb.State, o LoadOptions) (solver.Result, error) {
	e.t.Helper()
	g, err := e.f.NewLoader(o).Load(e.t.Context(), define(e.t, s))
	if err != nil {
		return nil, err
	}
	b := e.solver.NewBuild(solver.BuildOptions{})
	defer func() {
		if err := b.Close(); err != nil {
			e.t.Errorf("close build: %v", err)
		}
	}()
	r, err := b.Result(e.t.Context(), g.Edge())
	if err == nil {
		e.t.Cleanup(func() { e.release(r) })
	}
	return r, err
}

func (e *engine) mustBuild(s llb.State) solver.Result {
	e.t.Helper()
	r, err := e.build(s, LoadOptions{})
	if err != nil {
		e.t.Fatalf("build: %v", err)
	}
	return r
}

func (e *engine) read(r solver.Result, name string) string {
	e.t.Helper()
	dt, err := e.f.ReadFile(e.t.Context(), RefOf(r), nil, gwclient.ReadRequest{Filename: name})
	if err != nil {
		e.t.Fatalf("read %s: %v", name, err)
	}
	return string(dt)
}

func (e *engine) wantRan(want ...string) {
	e.t.Helper()
	if got := e.commands(); !slices.Equal(got, want) {
		e.t.Errorf("ran %q, want %q", got, want)
	}
}

func TestBuildRunsOnceAndIsCachedThen(t *testing.T) {
	e := newEngine(t)
	e.src.set("base", file{path: "etc/"}, file{path: "etc/conf", data: "base"})
	s := mem("base").Run(llb.Args([]string{"write", "/out", "hello"})).Root()
	r := e.mustBuild(s)
	if got := e.read(r, "/out"); got != "hello" {
		t.Errorf("out = %q", got)
	}
	if got := e.read(r, "/etc/conf"); got != "base" {
		t.Errorf("conf = %q", got)
	}
	if n := len(RefOf(r).IDs()); n != 2 {
		t.Errorf("%d layers, want the base's and the step's", n)
	}
	e.wantRan("write /out hello")
	e.mustBuild(s)
	e.wantRan()
	e.src.set("base", file{path: "etc/"}, file{path: "etc/conf", data: "changed"})
	e.mustBuild(s)
	e.wantRan("write /out hello")
}

func TestCopyHitsWhenOtherFilesChange(t *testing.T) {
	e := newEngine(t)
	e.src.set("base")
	context := func(readme string) {
		e.src.set("ctx", file{path: "src/"}, file{path: "src/main.go", data: "package main"}, file{path: "README", data: readme})
	}
	context("one")
	s := mem("base").File(llb.Copy(mem("ctx"), "/src", "/src")).Run(llb.Args([]string{"true"})).Root()
	e.mustBuild(s)
	e.wantRan("true")
	context("two")
	e.mustBuild(s)
	e.wantRan()
	e.src.set("ctx", file{path: "src/"}, file{path: "src/main.go", data: "package other"})
	e.mustBuild(s)
	e.wantRan("true")
}

func TestReadOnlyMountHitsWhenOtherFilesChange(t *testing.T) {
	e := newEngine(t)
	e.src.set("base")
	set := func(in, out string) {
		e.src.set("ctx", file{path: "in/"}, file{path: "in/f", data: in}, file{path: "out/"}, file{path: "out/f", data: out})
	}
	mounted := func(o ...llb.MountOption) llb.State {
		o = append(o, llb.SourcePath("/in"))
		run := mem("base").Run(llb.Args([]string{"read", "/mnt/f"}), llb.AddMount("/mnt", mem("ctx"), o...))
		return run.Root()
	}
	set("1", "1")
	e.mustBuild(mounted(llb.Readonly))
	e.wantRan("read /mnt/f")
	set("1", "2")
	e.mustBuild(mounted(llb.Readonly))
	e.wantRan()
	set("2", "2")
	e.mustBuild(mounted(llb.Readonly))
	e.wantRan("read /mnt/f")
}

// What a step writes next to what it selected must not come out with another build's neighbours.
func TestWritableMountWithOutputTakesTheWholeInput(t *testing.T) {
	e := newEngine(t)
	e.src.set("base")
	state := func() llb.State {
		run := mem("base").Run(llb.Args([]string{"write", "/mnt/new", "x"}))
		return run.AddMount("/mnt", mem("ctx"), llb.SourcePath("/in"))
	}
	e.src.set("ctx", file{path: "in/"}, file{path: "in/f", data: "1"}, file{path: "other", data: "1"})
	e.mustBuild(state())
	e.wantRan("write /mnt/new x")
	e.src.set("ctx", file{path: "in/"}, file{path: "in/f", data: "1"}, file{path: "other", data: "2"})
	r := e.mustBuild(state())
	e.wantRan("write /mnt/new x")
	if got := e.read(r, "other"); got != "2" {
		t.Errorf("other = %q, want this build's", got)
	}
}

func TestMissingCopySource(t *testing.T) {
	e := newEngine(t)
	e.src.set("base")
	e.src.set("ctx", file{path: "there", data: "x"})
	// What has to be digested first is missed then; what is read and written at once, when it is copied.
	const digested, copied = `"/nothere": not found`, "/nothere: no such file or directory"
	for _, c := range []struct {
		state llb.State
		want  string
	}{
		{mem("base").File(llb.Copy(mem("ctx"), "/nothere", "/")), digested},
		{mem("base").File(llb.Copy(mem("base"), "/nothere", "/")), copied},
		{mem("ctx").File(llb.Copy(mem("ctx"), "/nothere", "/")), copied},
		{mem("base").File(llb.Copy(llb.Scratch(), "/nothere", "/")), copied},
		{mem("base").File(llb.Copy(mem("ctx"), "/", "/", &llb.CopyInfo{IncludePatterns: []string{"nothere"}, RequiredPaths: []string{"/nothere"}})), digested},
	} {
		_, err := e.build(c.state, LoadOptions{})
		if err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf(`error %v, want one with %s`, err, c.want)
		}
	}
}

func TestFailingStep(t *testing.T) {
	e := newEngine(t)
	e.src.set("base")
	_, err := e.build(mem("base").Run(llb.Args([]string{"fail", "now"})).Root(), LoadOptions{})
	var exit *executor.ExitError
	var where *solver.VertexError
	const want = `process "fail now" did not complete successfully: exit code: 3`
	if err == nil || err.Error() != want || !errors.As(err, &exit) || exit.Code != 3 || !errors.As(err, &where) {
		t.Errorf("error %v (%T), want %s", err, err, want)
	}
}

func TestIgnoreCacheRunsAgain(t *testing.T) {
	e := newEngine(t)
	e.src.set("base")
	s := mem("base").Run(llb.Args([]string{"true"})).Root()
	e.mustBuild(s)
	e.wantRan("true")
	if _, err := e.build(s, LoadOptions{NoCache: true}); err != nil {
		t.Fatal(err)
	}
	e.wantRan("true")
	e.mustBuild(mem("base").Run(llb.Args([]string{"true"}), llb.IgnoreCache).Root())
	e.wantRan("true")
}

func TestStepsBuildOnCachedSteps(t *testing.T) {
	e := newEngine(t)
	e.src.set("base")
	first := mem("base").Run(llb.Args([]string{"write", "/a", "1"})).Root()
	e.mustBuild(first)
	e.wantRan("write /a 1")
	r := e.mustBuild(first.Run(llb.Args([]string{"write", "/b", "2"})).Root())
	e.wantRan("write /b 2")
	if got := e.read(r, "a") + e.read(r, "b"); got != "12" {
		t.Errorf("a, b = %q", got)
	}
}

func TestMergeAndDiff(t *testing.T) {
	e := newEngine(t)
	e.src.set("base", file{path: "keep", data: "k"}, file{path: "gone", data: "g"}, file{path: "dir/"}, file{path: "dir/x", data: "x"})
	base := mem("base")
	changed := base.File(llb.Rm("/gone").Mkfile("/dir/y", 0o600, []byte("y"))).File(llb.Rm("/dir/x"))
	diff := llb.Diff(base, changed)
	r := e.mustBuild(diff)
	if n := len(RefOf(r).IDs()); n != 2 {
		t.Errorf("a diff to what was built on it has %d layers, want the 2 that were added", n)
	}
	again := e.mustBuild(llb.Merge([]llb.State{base, diff}))
	want := e.mustBuild(changed)
	if got, want := RefOf(again).IDs(), RefOf(want).IDs(); !slices.Equal(got, want) {
		t.Errorf("base + (changed - base) = %v, want %v", got, want)
	}
	if r := e.mustBuild(llb.Diff(base, base)); RefOf(r) != nil && len(RefOf(r).IDs()) != 0 {
		t.Errorf("the diff of a thing to itself has layers %v", RefOf(r).IDs())
	}
}

func TestDiffOfUnrelatedTrees(t *testing.T) {
	e := newEngine(t)
	e.src.set("a", file{path: "same", data: "s"}, file{path: "gone/"}, file{path: "gone/f", data: "1"}, file{path: "f", data: "old"},
		file{path: "d/"}, file{path: "d/x", data: "x"}, file{path: "type", data: "file"}, file{path: "l1", data: "l"}, file{path: "l2", link: "l1"})
	e.src.set("b", file{path: "same", data: "s"}, file{path: "f", data: "new"}, file{path: "d/", uid: 7}, file{path: "d/y", data: "y"},
		file{path: "type/"}, file{path: "type/in", data: "in"}, file{path: "ln", mode: unix.S_IFLNK | 0o777, data: "f"},
		file{path: "l1", data: "l"}, file{path: "l2", link: "l1"}, file{path: "l3", link: "l1"}, file{path: "x", data: "x", x: map[string]string{"user.a": "b"}})
	a, b := mem("a"), mem("b")
	got := e.list(e.mustBuild(llb.Merge([]llb.State{a, llb.Diff(a, b)})), time.Time{})
	want := e.list(e.mustBuild(b), time.Time{})
	if !slices.Equal(got, want) {
		t.Errorf("a + (b - a)\ngot:\n  %s\nwant:\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
	d := e.mustBuild(llb.Diff(a, b))
	layer, err := e.store.LayerTree(t.Context(), RefOf(d), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := layer.Stat(t.Context(), "same"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is the same is in the diff: %v", err)
	}
	none := e.list(e.mustBuild(llb.Merge([]llb.State{a, llb.Diff(a, llb.Scratch())})), time.Time{})
	if len(none) != 0 {
		t.Errorf("a + (scratch - a) = %q, want nothing", none)
	}
}

func TestBuildOp(t *testing.T) {
	e := newEngine(t)
	e.src.set("base")
	inner, err := llb.Scratch().File(llb.Mkfile("/made", 0o600, []byte("inside"))).Marshal(t.Context(), llb.LinuxAmd64)
	if err != nil {
		t.Fatal(err)
	}
	var dt strings.Builder
	if err := llb.WriteTo(inner, &dt); err != nil {
		t.Fatal(err)
	}
	e.src.set("def", file{path: "build.pb", data: dt.String()})
	in := define(t, mem("def"))
	op := &pb.Op{
		Inputs: []*pb.Input{lastInput(t, in)},
		Op: &pb.Op_Build{Build: &pb.BuildOp{
			Builder: int64(pb.LLBBuilder),
			Inputs:  map[string]*pb.BuildInput{pb.LLBDefinitionInput: {Input: 0}},
			Attrs:   map[string]string{pb.AttrLLBDefinitionFilename: "build.pb"},
		}},
	}
	def := wrap(t, in, op)
	b := e.solver.NewBuild(solver.BuildOptions{})
	defer func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}()
	var l *Loader
	l = e.f.NewLoader(LoadOptions{Solve: func(ctx context.Context, def *pb.Definition) (solver.Result, error) {
		g, err := l.Load(ctx, def)
		if err != nil {
			return nil, err
		}
		return b.Result(ctx, g.Edge())
	}})
	g, err := l.Load(t.Context(), def)
	if err != nil {
		t.Fatal(err)
	}
	r, err := b.Result(t.Context(), g.Edge())
	if err != nil {
		t.Fatal(err)
	}
	defer e.release(r)
	if got := e.read(r, "made"); got != "inside" {
		t.Errorf("made = %q", got)
	}
	if _, err := e.f.NewLoader(LoadOptions{}).Load(t.Context(), def); err == nil {
		t.Error("a build op was loaded where nothing can solve it")
	}
}

func TestSourcesArePinnedOncePerBuild(t *testing.T) {
	e := newEngine(t)
	e.src.set("base", file{path: "f", data: "f"})
	l := e.f.NewLoader(LoadOptions{})
	b := e.solver.NewBuild(solver.BuildOptions{})
	defer func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}()
	for i := range 3 {
		s := mem("base").Run(llb.Args([]string{"write", "/x", fmt.Sprint(i)})).Root()
		g, err := l.Load(t.Context(), define(t, s))
		if err != nil {
			t.Fatal(err)
		}
		r, err := b.Result(t.Context(), g.Edge())
		if err != nil {
			t.Fatal(err)
		}
		e.release(r)
	}
	if n := e.src.pins["base"]; n != 1 {
		t.Errorf("pinned %d times by one build, want once", n)
	}
}

func TestPassthrough(t *testing.T) {
	e := newEngine(t)
	e.src.set("a", file{path: "a", data: "a"})
	in := define(t, mem("a"))
	def := wrap(t, in, &pb.Op{
		Inputs: []*pb.Input{lastInput(t, in)},
		Op:     &pb.Op_Passthrough{Passthrough: &pb.PassthroughOp{Id: "group", Outputs: []int64{0, 0}}},
	})
	g, err := e.f.NewLoader(LoadOptions{}).Load(t.Context(), def)
	if err != nil {
		t.Fatal(err)
	}
	b := e.solver.NewBuild(solver.BuildOptions{})
	defer func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}()
	r, err := b.Result(t.Context(), g.Edge())
	if err != nil {
		t.Fatal(err)
	}
	defer e.release(r)
	if got := e.read(r, "a"); got != "a" {
		t.Errorf("a = %q", got)
	}
}

// lastInput is what a definition asks for.
func lastInput(t testing.TB, def *pb.Definition) *pb.Input {
	t.Helper()
	var op pb.Op
	if err := op.Unmarshal(def.Def[len(def.Def)-1]); err != nil {
		t.Fatal(err)
	}
	return op.Inputs[0]
}
