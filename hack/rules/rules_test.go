package rules

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const (
	module   = "github.com/slipwaybuild/slipway/"
	buildkit = "github.com/moby/buildkit/"
)

// room is a folder and those of our folders it may import besides itself. The first room that holds a package counts.
type room struct {
	path   string
	may    []string
	reason string
}

// core is the solver without what a container build needs: it can be tested with ops that add numbers.
var core = []string{"solver", "solver/flight", "solver/guard", "solver/keylock", "solver/progress"}

var rooms = []room{
	{"proto", nil, "wire types are a boundary and know nobody"},
	{"session", []string{"proto"}, "a session knows transports and attachables, never builds"},
	{"solver/flight", nil, "flights know nothing of builds"},
	{"solver/keylock", nil, "locks know nothing of what they guard"},
	{"solver/guard", []string{"solver/progress"}, "the guard knows values and what they may look like, and no builds"},
	{"solver/progress", nil, "progress is what all others write"},
	{"solver/layers", slices.Concat(core, []string{"session"}), "the layer store is the bottom of the container half"},
	{"solver/executor", slices.Concat(core, []string{"session", "solver/layers"}), "an executor mounts layers and runs"},
	{"solver/source", slices.Concat(core, []string{"session", "solver/layers", "solver/executor"}), "sources make layers"},
	{"solver/cachestore", slices.Concat(core, []string{"session", "solver/layers", "solver/executor", "solver/source"}), "the cache names layers"},
	{"solver/remotecache", slices.Concat(core, []string{"session", "solver/layers", "solver/executor", "solver/source", "solver/cachestore"}), "caches elsewhere give what the cache here gives"},
	{"solver/ops", slices.Concat(core, []string{"session", "solver/layers", "solver/executor", "solver/source", "solver/cachestore"}), "ops stand on all of it"},
	{"solver", []string{"solver/flight", "solver/progress"}, "the core of the solver knows no containers, files, registries or Dockerfiles"},
	{"frontend", []string{"solver", "session"}, "a frontend reaches the engine through its bridge"},
	{"exporter", []string{"solver", "session"}, "an exporter is handed layers and configs"},
	{"daemon", []string{"solver", "session", "frontend", "exporter", "proto"}, "the daemon puts the engine together"},
	{"cmd/slipwayd", []string{"solver", "session", "frontend", "exporter", "proto", "daemon", "cmd/internal"}, "the daemon's command wires"},
	{"cmd/slipway", []string{"session", "proto", "cmd/internal"}, "the command line links none of the engine, so that it starts in milliseconds"},
	{"cmd/internal", nil, "what both commands share is small"},
	{"hack", []string{"solver", "session", "frontend", "exporter", "proto", "daemon", "cmd"}, "scripts may use anything"},
}

// engine lists BuildKit's engine, which is not ours to import. What is below an allowed path is the language or the wire.
var engine = map[string][]string{
	"cache":    nil,
	"worker":   nil,
	"snapshot": nil,
	"executor": nil,
	"source":   {"source/types"},
	"control":  nil,
	"cmd":      nil,
	"solver":   {"solver/pb", "solver/errdefs", "solver/result"},
	"exporter": {"exporter/containerimage/exptypes", "exporter/exptypes"},
}

type pkg struct {
	ImportPath                string
	Imports                   []string
	TestImports, XTestImports []string
}

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports,TestImports,XTestImports"}, args...)...)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		var ee *exec.ExitError
		if errors.As(err, &ee) {
			t.Fatalf("go list: %v\n%s", err, ee.Stderr)
		}
		t.Fatal(err)
	}
	var pkgs []pkg
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

func roomOf(path string) (room, bool) {
	for _, r := range rooms {
		if within(path, r.path) {
			return r, true
		}
	}
	return room{}, false
}

func allowed(r room, imported string) bool {
	if target, ok := roomOf(imported); ok && target.path == r.path {
		return true
	}
	// The core is named package by package: what lies below it is no part of it.
	return slices.ContainsFunc(r.may, func(dir string) bool {
		if slices.Contains(core, dir) && slices.Contains(r.may, "solver/progress") {
			return imported == dir || dir == "solver" && within(imported, "solver/storetest") || dir == "solver" && within(imported, "solver/memstore")
		}
		return within(imported, dir)
	})
}

func TestRoomsImportDownwards(t *testing.T) {
	for _, p := range list(t, "./...") {
		path := strings.TrimPrefix(p.ImportPath, module)
		r, ok := roomOf(path)
		if !ok {
			t.Errorf("%s is in no room: add it to the table, with a reason", path)
			continue
		}
		for _, imp := range p.Imports {
			if imported, ours := strings.CutPrefix(imp, module); ours && !allowed(r, imported) {
				t.Errorf("%s imports %s, but %s", path, imported, r.reason)
			}
		}
	}
}

func TestBuildKitIsLanguageAndWireOnly(t *testing.T) {
	for _, p := range list(t, "./...") {
		for _, imp := range p.Imports {
			path, ok := strings.CutPrefix(imp, buildkit)
			if !ok {
				continue
			}
			top, _, _ := strings.Cut(path, "/")
			exceptions, forbidden := engine[top]
			if forbidden && !slices.ContainsFunc(exceptions, func(e string) bool { return within(path, e) }) {
				t.Errorf("%s imports %s: BuildKit's engine is not ours to use", strings.TrimPrefix(p.ImportPath, module), imp)
			}
		}
	}
}

func TestCommandLineLinksNoEngine(t *testing.T) {
	for _, p := range list(t, "-deps", "./cmd/slipway") {
		if path, ours := strings.CutPrefix(p.ImportPath, module); ours {
			for _, dir := range []string{"solver", "frontend", "exporter", "daemon"} {
				if within(path, dir) {
					t.Errorf("slipway links %s", path)
				}
			}
		}
		for _, never := range []string{"go.etcd.io/bbolt", buildkit + "solver/llbsolver", buildkit + "frontend/dockerfile/builder", "github.com/containerd/containerd/v2/core/metadata"} {
			if p.ImportPath == never {
				t.Errorf("slipway links %s", never)
			}
		}
	}
}
