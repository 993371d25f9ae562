package exporter_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/exporter/cacheonly"
	"github.com/slipwaybuild/slipway/exporter/internal/exportertest"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/filesync"
	"github.com/slipwaybuild/slipway/session/sessiontest"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"github.com/slipwaybuild/slipway/solver/layers/layerstest"
	"github.com/slipwaybuild/slipway/solver/progress"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRegistry(t *testing.T) {
	t.Parallel()
	r := exporter.NewRegistry()
	r.Register(cacheonly.New(), cacheonly.Type, "none")
	bad := errors.New("bad")
	r.Register(func(int, map[string]string) (exporter.Exporter, error) { return nil, bad }, "bad")
	if got := r.Types(); !slices.Equal(got, []string{"bad", "cacheonly", "none"}) {
		t.Errorf("types %v", got)
	}
	if _, err := r.New("bad", 0, nil); !errors.Is(err, bad) {
		t.Errorf("got %v", err)
	}
	if _, err := r.New("x", 0, nil); err == nil || err.Error() != `exporter "x" could not be found` {
		t.Errorf("got %v", err)
	}
	x, err := r.New("none", 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if answer, err := x.Export(t.Context(), exporter.Input{}, &exportertest.Progress{}); err != nil || len(answer) != 0 || x.Name() == "" {
		t.Errorf("%q gave %v, %v", x.Name(), answer, err)
	}
}

// counted counts what is written of a status.
type counted struct {
	exportertest.Progress
	n int
}

func (c *counted) Status(s progress.Status) {
	c.n++
	c.Progress.Status(s)
}

func TestMeter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var p counted
		m := exporter.Meter(&p, progress.Status{ID: "x"})
		for range 1000 {
			time.Sleep(time.Millisecond)
			m.Add(2)
		}
		m.Add(-5)
		m.Done()
		s, _ := p.Last("x")
		if s.Current != 1995 || s.Completed.Sub(*s.Started) != time.Second {
			t.Errorf("got %+v", s)
		}
		if p.n != 12 {
			t.Errorf("%d events in a second, want ten, the first and the last", p.n)
		}
	})
}

// Of several clients the one that takes outputs is asked, once, whatever comes of it.
func TestToClient(t *testing.T) {
	t.Parallel()
	m := sessiontest.NewManager(t, session.ManagerOptions{})
	d := sessiontest.HTTP(t, m)
	var f exportertest.File
	ids := make([]string, 3)
	for i, services := range [][]session.Attachable{{}, {f.Target(0)}, {f.Target(0)}} {
		s := session.New(session.Options{})
		s.Allow(services...)
		ids[i] = sessiontest.Run(t, m, d, s).ID()
	}
	broken := errors.New("broken")
	for _, want := range []error{nil, broken, session.ErrNotSupported} {
		var asked []string
		err := exporter.ToClient(t.Context(), m.Group(ids...), func(_ context.Context, c session.Caller) error {
			asked = append(asked, c.ID())
			return want
		})
		if !errors.Is(err, want) || !slices.Equal(asked, ids[1:2]) {
			t.Errorf("asked %v of %v, got %v", asked, ids, err)
		}
	}
	if err := exporter.ToClient(t.Context(), m.Group(ids[0]), nil); err == nil || !strings.Contains(err.Error(), "/moby.filesync.v1.FileSend/DiffCopy not supported by the client") {
		t.Errorf("got %v", err)
	}
}

func TestStream(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	ctx, cancel := context.WithCancel(t.Context())
	for _, c := range []struct {
		name  string
		write func(io.Writer) error
		want  error
	}{
		{"whole", func(w io.Writer) error { return write(w, 3<<20) }, nil},
		{"nothing", func(io.Writer) error { return nil }, nil},
		{"broken at once", func(io.Writer) error { return broken }, broken},
		{"broken later", func(w io.Writer) error { return errors.Join(write(w, 3<<20), broken) }, broken},
		{"cancelled", func(w io.Writer) error {
			err := write(w, 1<<20)
			cancel()
			return err
		}, context.Canceled},
	} {
		var f exportertest.File
		err := exporter.ToClient(t.Context(), sessiontest.Pair(t, f.Target(7)), func(_ context.Context, caller session.Caller) error {
			return exporter.Stream(ctx, exporter.Input{}, caller, 7, map[string]string{"k": "v"}, c.write)
		})
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: got %v", c.name, err)
		}
		if c.want == nil != f.Whole() {
			t.Errorf("%s: the client's file is whole: %v", c.name, f.Whole())
		}
	}
}

func write(w io.Writer, n int) error {
	_, err := w.Write(make([]byte, n))
	return err
}

// A client that has the file already takes nothing, and that is fine.
func TestStreamToWhoHasIt(t *testing.T) {
	t.Parallel()
	target := filesync.NewTarget(map[int]filesync.Target{0: {Open: func(map[string]string) (io.WriteCloser, error) { return nil, nil }}})
	err := exporter.ToClient(t.Context(), sessiontest.Pair(t, target), func(ctx context.Context, c session.Caller) error {
		return exporter.Stream(ctx, exporter.Input{}, c, 0, nil, func(w io.Writer) error { return write(w, 5<<20) })
	})
	if err != nil {
		t.Error(err)
	}
}

// The tree of several platforms answers alike however it is asked.
func TestPlatformsTreeIsOne(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	in := exportertest.Two(b.Rich(), b.Layer("x", layerstest.Text("f", "1"), layerstest.HardLink("g", "f")), nil)
	tree, err := exporter.Trees(t.Context(), b.Layers, in, exporter.TreeOptions{}, &exportertest.Progress{})
	b.OK(err)
	links := 0
	b.OK(fstree.Walk(t.Context(), tree, "", func(e fstree.Entry) error {
		again, err := tree.Stat(t.Context(), e.Path)
		if err != nil || again.Path != e.Path || again.Mode != e.Mode || !again.ModTime.Equal(e.ModTime) || again.Hardlink != e.Hardlink {
			t.Errorf("listed as %+v, is %+v, %v", e, again, err)
		}
		if e.Hardlink != "" {
			links++
			if _, err := tree.Stat(t.Context(), e.Hardlink); err != nil {
				t.Error(err)
			}
		}
		if e.IsRegular() {
			c, err := tree.Open(t.Context(), e.Path)
			b.OK(err)
			if c.Size() != e.Size {
				t.Errorf("%s has %d bytes, not %d", e.Path, c.Size(), e.Size)
			}
			b.OK(c.Close())
		}
		return nil
	}))
	if links != 3 {
		t.Errorf("%d hard links", links)
	}
	for _, path := range []string{"none", "none/x", "linux_amd64/none"} {
		if _, err := tree.Stat(t.Context(), path); err == nil {
			t.Errorf("%s is there", path)
		}
		if _, err := tree.ReadDir(t.Context(), path); err == nil {
			t.Errorf("%s can be listed", path)
		}
		if _, err := tree.Open(t.Context(), path); err == nil {
			t.Errorf("%s can be opened", path)
		}
	}
	if _, err := tree.Open(t.Context(), ""); err == nil {
		t.Error("the root can be opened")
	}
}
