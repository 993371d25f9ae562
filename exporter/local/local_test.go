package local_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/exporter/internal/exportertest"
	"github.com/slipwaybuild/slipway/exporter/local"
	"github.com/slipwaybuild/slipway/session/filesync"
	"github.com/slipwaybuild/slipway/solver/layers/layerstest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func run(ctx context.Context, t *testing.T, b *exportertest.Bench, a map[string]string, in exporter.Input) error {
	t.Helper()
	x, err := local.New(b.Layers)(1, a)
	if err != nil {
		t.Fatal(err)
	}
	var p exportertest.Progress
	_, err = x.Export(ctx, in, &p)
	if open := p.Open(); len(open) != 0 {
		t.Errorf("statuses without end: %v", open)
	}
	return err
}

// export runs an output into a directory of the client.
func export(t *testing.T, b *exportertest.Bench, a map[string]string, in exporter.Input, to filesync.Target) string {
	t.Helper()
	if to.Dir == "" {
		to.Dir = filepath.Join(t.TempDir(), "out")
	}
	in.Sessions = b.Client(filesync.NewTarget(map[int]filesync.Target{1: to}))
	if err := run(t.Context(), t, b, a, in); err != nil {
		t.Fatal(err)
	}
	return to.Dir
}

// files lists what is below a directory, with the contents of files.
func files(t *testing.T, dir string) string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err == nil && d.Type().IsRegular() {
			var data []byte
			data, err = os.ReadFile(path)
			name += "=" + string(data)
		}
		list = append(list, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(list, " ")
}

func TestWholeTree(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	rich := b.Rich()
	want := b.Snapshot(rich)
	got := layerstest.Snapshot(t, export(t, b, nil, exportertest.Input(rich, "", nil), filesync.Target{KeepOwner: true}))
	for name, line := range want {
		if name != "." && got[name] != line {
			t.Errorf("%s\n got %q\nwant %q", name, got[name], line)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d entries, want %d", len(got), len(want))
	}
}

func TestLayout(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	x := b.Layer("x", layerstest.Dir("d", 0o755), layerstest.Text("d/a", "1"), layerstest.Link("l", "d"))
	y := b.Layer("y", layerstest.Dir("d", 0o755), layerstest.Text("d/b", "2"))
	one, two := exportertest.Input(x, "", nil), exportertest.Two(x, y, nil)
	multi := one
	multi.MultiPlatform = true
	for _, c := range []struct {
		name, want string
		a          map[string]string
		in         exporter.Input
	}{
		{"one", "d d/a=1 l", nil, one},
		{"one of several", "linux_amd64 linux_amd64/d linux_amd64/d/a=1 linux_amd64/l", nil, multi},
		{"one, split", "linux_amd64 linux_amd64/d linux_amd64/d/a=1 linux_amd64/l", map[string]string{"platform-split": "true"}, one},
		{"one of several, not split", "d d/a=1 l", map[string]string{"platform-split": "false"}, multi},
		{"two", "linux_amd64 linux_amd64/d linux_amd64/d/a=1 linux_amd64/l linux_arm64 linux_arm64/d linux_arm64/d/b=2", nil, two},
		{"two, not split", "d d/a=1 d/b=2 l", map[string]string{"platform-split": "false"}, two},
		{"a part", "a=1", map[string]string{"src": "/d"}, one},
		{"a part behind a link", "a=1", map[string]string{"src": "../l/."}, one},
		{"nothing", "", nil, exportertest.Input(b.Stack(), "", nil)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := files(t, export(t, b, c.a, c.in, filesync.Target{})); got != c.want {
				t.Errorf("got %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	file := b.Layer("x", layerstest.Text("a", "1"))
	dir := b.Layer("y", layerstest.Dir("a", 0o755))
	unsplit := map[string]string{"platform-split": "false"}
	twins := exportertest.Two(file, dir, nil)
	twins.Platforms[1].ID = "linux_amd64"
	for _, c := range []struct {
		name, want string
		a          map[string]string
		in         exporter.Input
	}{
		{"same file", "cannot overwrite a from linux_amd64 with linux_arm64 when split option is disabled", unsplit, exportertest.Two(file, file, nil)},
		{"directory over file", "cannot overwrite a", unsplit, exportertest.Two(file, dir, nil)},
		{"file over directory", "cannot overwrite a", unsplit, exportertest.Two(dir, file, nil)},
		{"no such part", "src=/b", map[string]string{"src": "/b"}, exportertest.Input(file, "", nil)},
		{"part is a file", "src=a: not a directory", map[string]string{"src": "a"}, exportertest.Input(file, "", nil)},
		{"two of one name", "two platforms", nil, twins},
		{"no platform", "no platform", nil, exporter.Input{}},
		{"client takes none", "not supported by the client", nil, exportertest.Input(file, "", b.Client())},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if c.in.Sessions == nil {
				c.in.Sessions = b.Client(filesync.NewTarget(map[int]filesync.Target{1: {Dir: dir}}))
			}
			err := run(t.Context(), t, b, c.a, c.in)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v", err)
			}
			if got := files(t, dir); got != "" {
				t.Errorf("the client has %s", got)
			}
		})
	}
	for _, a := range []map[string]string{{"platform-split": "x"}, {"mode": "mirror"}, {"src": ""}, {"source-date-epoch": "x"}} {
		if _, err := local.New(b.Layers)(0, a); err == nil {
			t.Errorf("%v: no error", a)
		}
	}
}

// A platform is named by the frontend, which must not get out of the directory that way.
func TestPlatformNamesStayInside(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	in := exportertest.Two(b.Layer("x", layerstest.Text("a", "1")), b.Layer("y", layerstest.Text("b", "2")), nil)
	in.Platforms[0].ID, in.Platforms[1].ID = "..", `../..\x`
	parent := t.TempDir()
	export(t, b, nil, in, filesync.Target{Dir: filepath.Join(parent, "out")})
	if got, want := files(t, parent), `out out/.._.._x out/.._.._x/b=2 out/___ out/___/a=1`; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestModeDelete(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	dir := t.TempDir()
	b.OK(os.WriteFile(filepath.Join(dir, "old"), nil, 0o600))
	in := exportertest.Two(b.Layer("x", layerstest.Text("a", "1")), b.Layer("y", layerstest.Text("b", "2")), nil)
	export(t, b, map[string]string{"mode": "delete"}, in, filesync.Target{Dir: dir, Delete: true})
	if got := files(t, dir); got != "linux_amd64 linux_amd64/a=1 linux_arm64 linux_arm64/b=2" {
		t.Errorf("got %s", got)
	}
}

func TestEpoch(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	old := layerstest.Text("old", "")
	old.ModTime = time.Unix(50, 0)
	ref := b.Layer("x", old, layerstest.Text("new", ""))
	in := exportertest.Two(ref, ref, nil)
	in.Metadata = map[string][]byte{"source.date.epoch": []byte("100"), "source.date.epoch/linux/arm64": []byte("200")}
	dir := export(t, b, nil, in, filesync.Target{})
	for name, want := range map[string]int64{
		"linux_amd64": 100, "linux_amd64/new": 100, "linux_amd64/old": 50, "linux_arm64": 200, "linux_arm64/new": 200, "linux_arm64/old": 50,
	} {
		fi, err := os.Stat(filepath.Join(dir, name))
		b.OK(err)
		if fi.ModTime().Unix() != want {
			t.Errorf("%s is of %d, want %d", name, fi.ModTime().Unix(), want)
		}
	}
}

func TestLazyLayerIsFetched(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	ref, blobs := b.Remote("registry.example/x:1", layerstest.Text("a", "1"))
	in := exportertest.Input(ref, "", nil)
	in.Fetcher = blobs
	if got := files(t, export(t, b, nil, in, filesync.Target{})); got != "a=1" {
		t.Errorf("got %s", got)
	}
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	in := exportertest.Input(b.Rich(), "", b.Client(filesync.NewTarget(map[int]filesync.Target{1: {Dir: t.TempDir()}})))
	if err := run(ctx, t, b, nil, in); err == nil {
		t.Error("no error")
	}
}
