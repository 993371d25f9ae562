package ops

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/executor"
	"github.com/slipwaybuild/slipway/solver/executor/fake"
	"github.com/slipwaybuild/slipway/solver/layers"
)

func withFake(s *layers.Store) executor.Executor { return fake.New(s, nil) }

// wrap puts op on top of a definition.
func wrap(t testing.TB, def *pb.Definition, op *pb.Op) *pb.Definition {
	t.Helper()
	out := &pb.Definition{Metadata: map[string]*pb.OpMetadata{}}
	if def != nil {
		out.Def = slices.Clone(def.Def[:len(def.Def)-1])
	}
	dt := marshal(t, op)
	last := &pb.Op{Inputs: []*pb.Input{{Digest: string(digest.FromBytes(dt))}}}
	out.Def = append(out.Def, dt, marshal(t, last))
	return out
}

func marshal(t testing.TB, op *pb.Op) []byte {
	t.Helper()
	dt, err := op.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return dt
}

func TestEmptyDefinition(t *testing.T) {
	y := newYard(t, nil)
	empty, err := llb.Scratch().Marshal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, def := range map[string]*pb.Definition{"nil": nil, "no ops": {}, "scratch": empty.ToPB()} {
		g, err := y.f.NewLoader(LoadOptions{}).Load(t.Context(), def)
		if err != nil || g.Edge().Vertex != nil {
			t.Errorf("%s: %v, %v; want no vertex", name, g, err)
		}
	}
}

func TestSharedStepsAreOneVertex(t *testing.T) {
	y := newYard(t, withFake)
	l := y.f.NewLoader(LoadOptions{})
	base := mem("base").Run(llb.Args([]string{"true"})).Root()
	one, err := l.Load(t.Context(), define(t, base))
	if err != nil {
		t.Fatal(err)
	}
	two, err := l.Load(t.Context(), define(t, base.Run(llb.Args([]string{"more"})).Root()))
	if err != nil {
		t.Fatal(err)
	}
	if two.Edge().Vertex.Inputs[0].Vertex != one.Edge().Vertex {
		t.Error("the shared step was loaded twice")
	}
	again, err := l.Load(t.Context(), define(t, mem("base").Run(llb.Args([]string{"true"}), llb.IgnoreCache).Root()))
	if err != nil {
		t.Fatal(err)
	}
	if v := again.Edge().Vertex; v == one.Edge().Vertex || !v.IgnoreCache || v.ID != one.Edge().Vertex.ID {
		t.Error("a step that ignores the cache is the one that does not")
	}
}

func TestVerticesSayWhoTheyAre(t *testing.T) {
	y := newYard(t, withFake)
	for _, c := range []struct {
		s    llb.State
		want string
	}{
		{mem("base"), "mem://base"},
		{mem("base").Run(llb.Args([]string{"echo", "a b"})).Root(), "echo a b"},
		{mem("base").Run(llb.Args([]string{"x"}), llb.WithCustomName("[1/2] RUN x")).Root(), "[1/2] RUN x"},
		{mem("a").File(llb.Copy(mem("b"), "/x", "/y").Mkdir("/d", 0o755).Rm("/z").Mkfile("/m", 0o600, nil).Symlink("/o", "/n")),
			"copy /x /y, mkdir /d, rm /z, mkfile /m, symlink /n -> /o"},
		{llb.Merge([]llb.State{mem("a"), mem("b")}), "merge (mem://a, mem://b)"},
		{llb.Diff(mem("a"), mem("b")), "diff (mem://a) -> (mem://b)"},
	} {
		v := y.load(c.s)
		if v.Name != c.want {
			t.Errorf("name %q, want %q", v.Name, c.want)
		}
		def := define(t, c.s)
		if want := digest.FromBytes(def.Def[len(def.Def)-2]); v.ID != want {
			t.Errorf("%s: id %s, want the digest of the op's bytes %s", c.want, v.ID, want)
		}
	}
}

func TestPlatformIsNormalised(t *testing.T) {
	y := newYard(t, withFake)
	key := func(o ...llb.ConstraintsOpt) string {
		s := mem("base").Run(llb.Args([]string{"x"})).Root()
		g, err := y.f.NewLoader(LoadOptions{}).Load(t.Context(), define(t, s, o...))
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(keyOf(t, g.Edge().Vertex))
	}
	if a, b := key(llb.LinuxAmd64), key(llb.LinuxArm64); a == b {
		t.Error("the platform is not in the key")
	}
	if !strings.Contains(key(llb.LinuxArm64), "linux/arm64") {
		t.Errorf("key %s", key(llb.LinuxArm64))
	}
}

func keyOf(t testing.TB, v *solver.Vertex) solver.Parts {
	t.Helper()
	parts, err := v.Op.Key(t.Context(), &fakeCall{})
	if err != nil {
		t.Fatal(err)
	}
	return parts
}

func TestEntitlements(t *testing.T) {
	y := newYard(t, withFake)
	for name, o := range map[string]llb.RunOption{
		"network.host":      llb.Network(pb.NetMode_HOST),
		"security.insecure": llb.Security(pb.SecurityMode_INSECURE),
	} {
		def := define(t, mem("base").Run(llb.Args([]string{"x"}), o).Root())
		_, err := y.f.NewLoader(LoadOptions{}).Load(t.Context(), def)
		var refused *EntitlementError
		if !errors.As(err, &refused) || refused.Name != name {
			t.Errorf("%s: error %v, want a refusal", name, err)
		}
		if _, err := y.f.NewLoader(LoadOptions{Entitlements: []string{name}}).Load(t.Context(), def); err != nil {
			t.Errorf("%s, granted: %v", name, err)
		}
	}
}

func TestCapabilities(t *testing.T) {
	y := newYard(t, withFake)
	if caps := Caps(); !slices.IsSorted(caps) || !slices.Contains(caps, "exec.mount.cache") || slices.Contains(caps, "exec.meta.network.proxy") {
		t.Errorf("Caps() = %v", caps)
	}
	def := define(t, mem("base").Run(llb.Args([]string{"x"})).Root())
	for _, md := range def.Metadata {
		md.Caps["teleport"] = true
	}
	_, err := y.f.NewLoader(LoadOptions{}).Load(t.Context(), def)
	var missing *CapabilityError
	if !errors.As(err, &missing) || missing.ID != "teleport" || !strings.Contains(err.Error(), "teleport") {
		t.Errorf("error %v, want the missing capability named", err)
	}
}

// Whatever is wrong with a definition, it is said in words, and never by a panic.
func TestBadDefinitions(t *testing.T) {
	y := newYard(t, withFake)
	src := define(t, mem("a"))
	in := lastInput(t, src)
	exec := func(change func(*pb.ExecOp)) *pb.Op {
		e := &pb.ExecOp{Meta: &pb.Meta{Args: []string{"x"}, Cwd: "/"}, Mounts: []*pb.Mount{{Dest: "/", Input: 0, Output: 0}}}
		change(e)
		return &pb.Op{Inputs: []*pb.Input{in}, Op: &pb.Op_Exec{Exec: e}}
	}
	file := func(actions ...*pb.FileAction) *pb.Op {
		return &pb.Op{Inputs: []*pb.Input{in}, Op: &pb.Op_File{File: &pb.FileOp{Actions: actions}}}
	}
	mk := &pb.FileAction_Mkdir{Mkdir: &pb.FileActionMkDir{Path: "/x", Timestamp: -1}}
	for _, c := range []struct {
		name string
		op   *pb.Op
		want string
	}{
		{"unknown op", &pb.Op{Inputs: []*pb.Input{in}}, "no known kind"},
		{"missing input", &pb.Op{Inputs: []*pb.Input{{Digest: string(digest.FromString("nothing"))}}, Op: &pb.Op_Merge{Merge: &pb.MergeOp{Inputs: []*pb.MergeInput{{}}}}}, "missing input digest sha256:"},
		{"digest that is none", &pb.Op{Inputs: []*pb.Input{{Digest: "x"}}, Op: &pb.Op_Merge{Merge: &pb.MergeOp{}}}, `input 0: "x"`},
		{"output out of range", &pb.Op{Inputs: []*pb.Input{{Digest: in.Digest, Index: 5}}, Op: &pb.Op_Merge{Merge: &pb.MergeOp{Inputs: []*pb.MergeInput{{}}}}}, "asks for output 5"},
		{"negative output", &pb.Op{Inputs: []*pb.Input{{Digest: in.Digest, Index: -1}}, Op: &pb.Op_Merge{Merge: &pb.MergeOp{Inputs: []*pb.MergeInput{{}}}}}, "asks for output -1"},
		{"source with inputs", &pb.Op{Inputs: []*pb.Input{in}, Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: "mem://x"}}}, "source op with 1 inputs"},
		{"unknown scheme", &pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: "gopher://x"}}}, `"gopher"`},
		{"no scheme", &pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: "x"}}}, "no scheme"},
		{"exec without meta", exec(func(e *pb.ExecOp) { e.Meta = nil }), "without meta"},
		{"exec without arguments", exec(func(e *pb.ExecOp) { e.Meta.Args = nil }), "without arguments"},
		{"exec without root", exec(func(e *pb.ExecOp) { e.Mounts[0].Dest = "/x" }), "0 root mounts"},
		{"exec of missing input", exec(func(e *pb.ExecOp) { e.Mounts[0].Input = 7 }), "input 7"},
		{"exec of negative input", exec(func(e *pb.ExecOp) { e.Mounts[0].Input = -2 }), "input -2"},
		{"exec with sparse outputs", exec(func(e *pb.ExecOp) { e.Mounts[0].Output = 3 }), "output 3"},
		{"exec with a tmpfs root", exec(func(e *pb.ExecOp) { e.Mounts[0].MountType = pb.MountType_TMPFS; e.Mounts[0].Output = -1 }), "cannot be the root"},
		{"exec with unknown mount", exec(func(e *pb.ExecOp) { e.Mounts[0].MountType = 99 }), "unknown mount type"},
		{"exec with a device", exec(func(e *pb.ExecOp) { e.CdiDevices = []*pb.CDIDevice{{Name: "v.com/gpu=1"}} }), "CDI device support is disabled"},
		{"content cache where unsafe", exec(func(e *pb.ExecOp) { e.Mounts[0].ContentCache = pb.MountContentCache_ON }), "invalid mount cache content"},
		{"file without actions", file(), "without actions"},
		{"file without outputs", file(&pb.FileAction{Action: mk, Output: -1, SecondaryInput: -1}), "without outputs"},
		{"file action without action", file(&pb.FileAction{}), "it is empty"},
		{"file action of itself", file(&pb.FileAction{Action: mk, Input: 1, SecondaryInput: -1}), "needs itself"},
		{"file actions in a ring", file(&pb.FileAction{Action: mk, Input: 2, SecondaryInput: -1}, &pb.FileAction{Action: mk, Input: 1, Output: -1}), "needs itself"},
		{"file input out of range", file(&pb.FileAction{Action: mk, Input: 9}), "input 9"},
		{"two outputs alike", file(&pb.FileAction{Action: mk}, &pb.FileAction{Action: mk}), "output 0 is there already"},
		{"merge of other inputs", &pb.Op{Inputs: []*pb.Input{in}, Op: &pb.Op_Merge{Merge: &pb.MergeOp{}}}, "merge op of 0 inputs has 1"},
		{"diff without sides", &pb.Op{Inputs: []*pb.Input{in}, Op: &pb.Op_Diff{Diff: &pb.DiffOp{}}}, "without lower or upper"},
		{"passthrough of nothing", &pb.Op{Inputs: []*pb.Input{in}, Op: &pb.Op_Passthrough{Passthrough: &pb.PassthroughOp{Id: "x"}}}, "0 outputs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := y.f.NewLoader(LoadOptions{}).Load(t.Context(), wrap(t, src, c.op))
			var bad *DefinitionError
			if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want a DefinitionError with %q", err, c.want)
			}
		})
	}
}

// Depth costs no stack, and a step that many use is looked at once.
func TestDeepAndWideDefinitions(t *testing.T) {
	y := newYard(t, nil)
	prev := marshal(t, &pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: "mem://a"}}})
	def := &pb.Definition{Def: [][]byte{prev}}
	for i := range maxOps - 2 {
		d := string(digest.FromBytes(prev))
		prev = marshal(t, &pb.Op{
			Inputs:      []*pb.Input{{Digest: d}, {Digest: d}},
			Op:          &pb.Op_Merge{Merge: &pb.MergeOp{Inputs: []*pb.MergeInput{{Input: 0}, {Input: 1}}}},
			Constraints: &pb.WorkerConstraints{Filter: []string{fmt.Sprint(i)}},
		})
		def.Def = append(def.Def, prev)
	}
	def.Def = append(def.Def, marshal(t, &pb.Op{Inputs: []*pb.Input{{Digest: string(digest.FromBytes(prev))}}}))
	g, err := y.f.NewLoader(LoadOptions{}).Load(t.Context(), def)
	if err != nil || g.Len() != maxOps-1 {
		t.Fatalf("Load: %v", err)
	}
	if n := len(g.Edge().Vertex.Name); n > maxName+10 {
		t.Errorf("a name of %d bytes", n)
	}
	big := &pb.Definition{Def: slices.Repeat([][]byte{prev}, maxOps+1)}
	if _, err := y.f.NewLoader(LoadOptions{}).Load(t.Context(), big); !errors.Is(err, ErrTooLarge) {
		t.Errorf("error %v, want ErrTooLarge", err)
	}
}

func TestSourceLocations(t *testing.T) {
	y := newYard(t, withFake)
	df := "FROM x\nRUN x\n"
	sm := llb.NewSourceMap(nil, "Dockerfile", "Dockerfile", []byte(df))
	s := mem("base").Run(llb.Args([]string{"x"}), sm.Location([]*pb.Range{{Start: &pb.Position{Line: 2}, End: &pb.Position{Line: 2}}})).Root()
	g, err := y.f.NewLoader(LoadOptions{}).Load(t.Context(), define(t, s))
	if err != nil {
		t.Fatal(err)
	}
	at := g.Locations(g.Edge().Vertex.ID)
	if len(at) != 1 || at[0].Info.Filename != "Dockerfile" || at[0].Ranges[0].Start.Line != 2 {
		t.Errorf("Locations = %+v", at)
	}
	bad := define(t, s)
	for _, l := range bad.Source.Locations {
		for _, x := range l.Locations {
			x.SourceIndex = 9
		}
	}
	if _, err := y.f.NewLoader(LoadOptions{}).Load(t.Context(), bad); err == nil {
		t.Error("a location in no file was loaded")
	}
}

func FuzzLoad(f *testing.F) {
	y := newYard(f, withFake)
	for _, s := range []llb.State{
		mem("a"),
		mem("a").Run(llb.Args([]string{"x"}), llb.AddMount("/m", mem("b"), llb.Readonly), llb.AddSecret("/s")).Root(),
		mem("a").File(llb.Copy(mem("b"), "/x", "/y", llb.WithUser("u:g")).Mkdir("/d", 0o755)),
		llb.Diff(mem("a"), llb.Merge([]llb.State{mem("a"), mem("b")})),
	} {
		def := define(f, s)
		dt, err := def.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(dt)
		for _, op := range def.Def {
			f.Add(op)
		}
	}
	f.Fuzz(func(t *testing.T, dt []byte) {
		var def pb.Definition
		if err := def.Unmarshal(dt); err != nil || len(def.Def) == 0 {
			// Taken for one op, which is asked for.
			last, err := (&pb.Op{Inputs: []*pb.Input{{Digest: string(digest.FromBytes(dt))}}}).Marshal()
			if err != nil {
				t.Fatal(err)
			}
			def = pb.Definition{Def: [][]byte{dt, last}}
		}
		g, err := y.f.NewLoader(LoadOptions{Entitlements: []string{"network.host"}}).Load(t.Context(), &def)
		if err != nil || g.Edge().Vertex == nil {
			return
		}
		v := g.Edge().Vertex
		for i := range v.Inputs {
			if s := v.Op.Selector(i); s != nil {
				s.Key()
			}
		}
		if _, source := v.Op.(*sourceOp); !source {
			if _, err := v.Op.Key(t.Context(), &fakeCall{}); err != nil {
				t.Error(err)
			}
		}
	})
}

func BenchmarkLoad2000(b *testing.B) {
	y := newYard(b, withFake)
	s := mem("base")
	for i := range 1000 {
		s = s.Run(llb.Args([]string{"step", fmt.Sprint(i)})).Root().File(llb.Copy(mem("ctx"), "/x", "/y"))
	}
	def := define(b, s)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := y.f.NewLoader(LoadOptions{}).Load(b.Context(), def); err != nil {
			b.Fatal(err)
		}
	}
}

// A policy may let one source wait for what it does with another.
func TestSourcesPassThePolicyTogether(t *testing.T) {
	y := newYard(t, nil)
	var all sync.WaitGroup
	all.Add(2)
	l := y.f.NewLoader(LoadOptions{Rewrite: func(ctx context.Context, op *pb.SourceOp, _ *pb.Platform) (*pb.SourceOp, error) {
		all.Done()
		all.Wait()
		return op, nil
	}})
	def, err := mem("a").File(llb.Copy(mem("b"), "/", "/")).Marshal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Load(t.Context(), def.ToPB()); err != nil {
		t.Fatal(err)
	}
}
