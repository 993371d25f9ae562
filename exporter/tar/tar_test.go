package tar_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/exporter/internal/exportertest"
	tarout "github.com/slipwaybuild/slipway/exporter/tar"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"github.com/slipwaybuild/slipway/solver/layers/layerstest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func run(ctx context.Context, t *testing.T, b *exportertest.Bench, a map[string]string, in exporter.Input) error {
	t.Helper()
	x, err := tarout.New(b.Layers)(2, a)
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

func export(t *testing.T, b *exportertest.Bench, a map[string]string, in exporter.Input) []byte {
	t.Helper()
	var f exportertest.File
	in.Sessions = b.Client(f.Target(2))
	if err := run(t.Context(), t, b, a, in); err != nil {
		t.Fatal(err)
	}
	if !f.Whole() {
		t.Error("the client does not know that it has everything")
	}
	return f.Bytes()
}

func names(t *testing.T, data []byte) string {
	t.Helper()
	var list []string
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return strings.Join(list, " ")
		}
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, h.Name)
	}
}

// What tar unpacks is what the layers show when they are mounted.
func TestWholeTree(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	rich := b.Rich()
	data := export(t, b, nil, exportertest.Input(rich, "", nil))
	if again := export(t, b, nil, exportertest.Input(rich, "", nil)); !bytes.Equal(data, again) {
		t.Error("a second export has other bytes")
	}
	path, err := exec.LookPath("tar")
	if err != nil {
		t.Skip("tar is not installed")
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), path, "-x", "-p", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", dir)
	cmd.Stdin = bytes.NewReader(data)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	want, got := b.Snapshot(rich), layerstest.Snapshot(t, dir)
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
	x, y := b.Layer("x", layerstest.Text("a", "1"), layerstest.HardLink("b", "a")), b.Layer("y", layerstest.Text("c", "1"))
	for _, c := range []struct {
		name, want string
		a          map[string]string
		in         exporter.Input
	}{
		{"one", "a b", nil, exportertest.Input(x, "", nil)},
		{"two", "linux_amd64/ linux_amd64/a linux_amd64/b linux_arm64/ linux_arm64/c", nil, exportertest.Two(x, y, nil)},
		{"not split", "a b c", map[string]string{"platform-split": "false"}, exportertest.Two(x, y, nil)},
		{"nothing", "", nil, exportertest.Input(b.Stack(), "", nil)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := names(t, export(t, b, c.a, c.in)); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestEpoch(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	data := export(t, b, map[string]string{"source-date-epoch": "7"}, exportertest.Two(b.Rich(), b.Rich(), nil))
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		b.OK(err)
		if h.ModTime.Unix() > 7 {
			t.Errorf("%s is of %v", h.Name, h.ModTime)
		}
	}
}

func TestClientGoesAway(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	f := exportertest.File{Refuse: errors.New("disk full"), Limit: 1 << 20}
	big := layerstest.Text("big", strings.Repeat("0123456789abcdef", 1<<18))
	err := run(t.Context(), t, b, nil, exportertest.Input(b.Layer("x", big), "", b.Client(f.Target(2))))
	if err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("got %v", err)
	}
	if f.Whole() {
		t.Error("the client believes that the file is whole")
	}
}

// brokenTree is a tree with a file that cannot be read.
type brokenTree struct{ fstree.Tree }

var errBroken = errors.New("broken")

func (brokenTree) Open(context.Context, string) (fstree.Content, error) { return nil, errBroken }

func TestBrokenTreeHasNoEnd(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	tree, err := b.Layers.Tree(t.Context(), b.Layer("x", layerstest.Text("a", ""), layerstest.Text("b", "1")))
	b.OK(err)
	var out bytes.Buffer
	if err := tarout.Write(t.Context(), &out, brokenTree{tree}); !errors.Is(err, errBroken) {
		t.Errorf("got %v", err)
	}
	path := filepath.Join(t.TempDir(), "x")
	b.OK(os.WriteFile(path, out.Bytes(), 0o600))
	if bytes.HasSuffix(out.Bytes(), make([]byte, 1024)) {
		t.Error("what is not whole has an end")
	}
}
