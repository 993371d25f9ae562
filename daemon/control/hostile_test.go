package control

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	controlapi "github.com/moby/buildkit/api/services/control"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

func encoded(t testing.TB, op *pb.Op) []byte {
	t.Helper()
	b, err := op.MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func action(a *pb.FileAction) *pb.Op {
	return &pb.Op{Op: &pb.Op_File{File: &pb.FileOp{Actions: []*pb.FileAction{a}}}}
}

func mkfile(path string) *pb.FileAction {
	return &pb.FileAction{Input: -1, SecondaryInput: -1, Action: &pb.FileAction_Mkfile{Mkfile: &pb.FileActionMkFile{Path: path, Mode: 0o644, Timestamp: -1}}}
}

// chain puts ops on one another, each of which uses the one below twice.
func chain(t testing.TB, length int) *pb.Definition {
	t.Helper()
	def := &pb.Definition{Def: [][]byte{encoded(t, action(mkfile("/f")))}}
	for i := range length {
		below := digestOf(def.Def[i])
		def.Def = append(def.Def, encoded(t, &pb.Op{
			Inputs: []*pb.Input{{Digest: below}, {Digest: below}},
			Op:     &pb.Op_Passthrough{Passthrough: &pb.PassthroughOp{Id: fmt.Sprint(i), Outputs: []int64{1}}},
		}))
	}
	def.Def = append(def.Def, encoded(t, &pb.Op{Inputs: []*pb.Input{{Digest: digestOf(def.Def[length])}}}))
	return def
}

// hostile are definitions that mean nothing.
func hostile(t testing.TB) map[string]*pb.Definition {
	t.Helper()
	file := encoded(t, action(mkfile("/f")))
	one := func(op *pb.Op) *pb.Definition {
		dt := encoded(t, op)
		return &pb.Definition{Def: [][]byte{file, dt, encoded(t, &pb.Op{Inputs: []*pb.Input{{Digest: digestOf(dt)}}})}}
	}
	in := []*pb.Input{{Digest: digestOf(file)}}
	exec := func(change func(*pb.ExecOp)) *pb.Definition {
		e := &pb.ExecOp{Meta: &pb.Meta{Args: []string{"x"}, Cwd: "/"}, Mounts: []*pb.Mount{{Dest: "/", Input: 0}}}
		change(e)
		return one(&pb.Op{Inputs: in, Op: &pb.Op_Exec{Exec: e}})
	}
	mutual := func(a, b string) []byte {
		return encoded(t, &pb.Op{Inputs: []*pb.Input{{Digest: a}, {Digest: b}}, Op: &pb.Op_Merge{Merge: &pb.MergeOp{}}})
	}
	return map[string]*pb.Definition{
		"no protobuf":           {Def: [][]byte{{0xff, 0xff}}},
		"missing input":         {Def: [][]byte{encoded(t, &pb.Op{Inputs: []*pb.Input{{Digest: digestOf(nil)}}})}},
		"digest of other bytes": {Def: [][]byte{file, encoded(t, &pb.Op{Inputs: []*pb.Input{{Digest: digestOf([]byte("else"))}}})}},
		"digest that is none":   {Def: [][]byte{file, encoded(t, &pb.Op{Inputs: []*pb.Input{{Digest: "sha256:../../x"}}})}},
		"a ring":                {Def: [][]byte{mutual(digestOf([]byte("b")), digestOf([]byte("a"))), encoded(t, &pb.Op{Inputs: []*pb.Input{{Digest: digestOf(mutual(digestOf([]byte("b")), digestOf([]byte("a"))))}}})}},
		"too many ops":          {Def: slices.Repeat([][]byte{{}}, 1<<20)},
		"too deep":              chain(t, 20_000),
		"too many inputs":       one(&pb.Op{Inputs: slices.Repeat(in, 100_000), Op: &pb.Op_Merge{Merge: &pb.MergeOp{}}}),
		"too many mounts":       exec(func(e *pb.ExecOp) { e.Mounts = slices.Repeat(e.Mounts, 100_000) }),
		"too many actions":      one(&pb.Op{Op: &pb.Op_File{File: &pb.FileOp{Actions: slices.Repeat([]*pb.FileAction{mkfile("/f")}, 100_000)}}}),
		"op of no kind":         closed(t, []byte{}),
		"op of another kind":    closed(t, []byte{0xfa, 0x07, 0x01, 'x'}), // field 127
		"empty source":          one(&pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{}}}),
		"empty exec":            one(&pb.Op{Op: &pb.Op_Exec{Exec: &pb.ExecOp{}}}),
		"empty file":            one(&pb.Op{Op: &pb.Op_File{File: &pb.FileOp{}}}),
		"empty merge":           one(&pb.Op{Inputs: in, Op: &pb.Op_Merge{Merge: &pb.MergeOp{}}}),
		"empty diff":            one(&pb.Op{Op: &pb.Op_Diff{Diff: &pb.DiffOp{}}}),
		"empty build":           one(&pb.Op{Op: &pb.Op_Build{Build: &pb.BuildOp{}}}),
		"empty passthrough":     one(&pb.Op{Op: &pb.Op_Passthrough{Passthrough: &pb.PassthroughOp{}}}),
		"build with definition": one(&pb.Op{Inputs: in, Op: &pb.Op_Build{Build: &pb.BuildOp{
			Builder: int64(pb.LLBBuilder), Inputs: map[string]*pb.BuildInput{pb.LLBDefinitionInput: {}}, Def: &pb.Definition{},
		}}}),
		"network of no kind":  exec(func(e *pb.ExecOp) { e.Network = 77 }),
		"security of no kind": exec(func(e *pb.ExecOp) { e.Security = 77 }),
		"mount of no kind":    exec(func(e *pb.ExecOp) { e.Mounts = append(e.Mounts, &pb.Mount{Dest: "/x", MountType: 77, Output: -1}) }),
		"content of no kind":  exec(func(e *pb.ExecOp) { e.Mounts[0].ContentCache = 77 }),
		"sharing of no kind": exec(func(e *pb.ExecOp) {
			e.Mounts = append(e.Mounts, &pb.Mount{Dest: "/x", Input: -1, Output: -1, MountType: pb.MountType_CACHE, CacheOpt: &pb.CacheOpt{ID: "x", Sharing: 77}})
		}),
		"cache without options": exec(func(e *pb.ExecOp) {
			e.Mounts = append(e.Mounts, &pb.Mount{Dest: "/x", Input: -1, Output: -1, MountType: pb.MountType_CACHE})
		}),
		"negative input":         exec(func(e *pb.ExecOp) { e.Mounts[0].Input = -7 }),
		"negative output":        exec(func(e *pb.ExecOp) { e.Mounts[0].Output = -7 }),
		"output far away":        exec(func(e *pb.ExecOp) { e.Mounts[0].Output = 1 << 60 }),
		"negative index":         one(&pb.Op{Inputs: []*pb.Input{{Digest: digestOf(file), Index: -1}}, Op: &pb.Op_Merge{Merge: &pb.MergeOp{Inputs: []*pb.MergeInput{{}}}}}),
		"action of nothing":      one(action(&pb.FileAction{})),
		"action far away":        one(action(&pb.FileAction{Input: 1 << 60, Action: mkfile("/f").Action})),
		"NUL in an argument":     exec(func(e *pb.ExecOp) { e.Meta.Args = []string{"a\x00b"} }),
		"NUL in the environment": exec(func(e *pb.ExecOp) { e.Meta.Env = []string{"A=\x00"} }),
		"NUL in a destination": exec(func(e *pb.ExecOp) {
			e.Mounts = append(e.Mounts, &pb.Mount{Dest: "/\x00", Input: -1, Output: -1, MountType: pb.MountType_TMPFS})
		}),
		"locations in no file": {Def: closed(t, file).Def, Source: &pb.Source{Locations: map[string]*pb.Locations{
			digestOf(file): {Locations: []*pb.Location{{SourceIndex: -1}}},
		}}},
		"an unknown capability": {Def: closed(t, file).Def, Metadata: map[string]*pb.OpMetadata{digestOf(file): {Caps: map[string]bool{"teleport": true}}}},
	}
}

// Whatever is wrong with a definition is told as the client's mistake, through both doors, and costs little.
func TestHostileDefinitions(t *testing.T) {
	t.Parallel()
	d := openDoor(t)
	ended := d.drive(t.Context(), "b")
	for name, def := range hostile(t) {
		if _, err := d.bridge.Solve(of(t, "b"), &gwpb.SolveRequest{Definition: def, AllowResultReturn: true}); grpcerrors.Code(err) != codes.InvalidArgument {
			t.Errorf("%s, LLBBridge.Solve: %.300v", name, err)
		}
		_, err := d.ctl.Solve(t.Context(), &controlapi.SolveRequest{Ref: "h-" + name, Definition: def})
		if grpcerrors.Code(err) != codes.InvalidArgument {
			t.Errorf("%s, Control.Solve: %.300v", name, err)
		}
		if err != nil && len(err.Error()) > 4096 {
			t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
		}
	}
	var mem runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&mem)
	if mem.HeapAlloc > 256<<20 {
		t.Errorf("%d bytes are held after all definitions were refused", mem.HeapAlloc)
	}
	if _, err := d.bridge.Return(of(t, "b"), &gwpb.ReturnRequest{Result: &gwpb.Result{}}); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Names and paths of absurd length or form are refused when the step runs, if not before.
func TestAbsurdPaths(t *testing.T) {
	t.Parallel()
	d := openDoor(t)
	for i, path := range []string{"/\x00", strings.Repeat("/x", 1<<16), "/" + strings.Repeat("y", 1<<12), ""} {
		dt := encoded(t, action(mkfile(path)))
		_, err := d.ctl.Solve(t.Context(), &controlapi.SolveRequest{Ref: fmt.Sprint(i), Definition: closed(t, dt), Exporters: []*controlapi.Exporter{{Type: "cacheonly"}}})
		if err == nil {
			t.Errorf("%.20q was made", path)
		}
	}
}

// A chain deeper than any frontend writes is solved.
func TestDeepChain(t *testing.T) {
	t.Parallel()
	d := openDoor(t)
	_, err := d.ctl.Solve(t.Context(), &controlapi.SolveRequest{Ref: "deep", Definition: chain(t, 10_000)})
	if err != nil {
		t.Error(err)
	}
}

func FuzzSolveRequest(f *testing.F) {
	for _, r := range []*controlapi.SolveRequest{
		{Ref: "r", Definition: &pb.Definition{Def: [][]byte{{}}}, Exporters: []*controlapi.Exporter{{}}, Cache: &controlapi.CacheOptions{Imports: []*controlapi.CacheOptionsEntry{{}}}},
		{Ref: "r", Frontend: "dockerfile.v0", CompatibilityVersion: 10, ProxyNetwork: true, ExporterDeprecated: "x"},
	} {
		b, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r controlapi.SolveRequest
		if proto.Unmarshal(b, &r) != nil {
			return
		}
		req, err := buildRequest(&r)
		if err == nil && (req.Driven == (r.Definition != nil || r.Frontend != "")) {
			t.Errorf("driven %t: %v", req.Driven, &r)
		}
	})
}
