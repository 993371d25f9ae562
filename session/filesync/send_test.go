package filesync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bkfilesync "github.com/moby/buildkit/session/filesync"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver/layers/fsstat"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"github.com/tonistiigi/fsutil"
)

// readTree is the inverse of writeTree, with modes.
func readTree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, p)
		switch {
		case fi.IsDir():
			out[name] = fi.Mode().String()
		case fi.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			out[name] = "-> " + target
			return err
		case fi.Mode().IsRegular():
			b, err := os.ReadFile(p)
			out[name] = fi.Mode().String() + " " + string(b)
			return err
		default:
			out[name] = fi.Mode().String()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func targets(dir string) map[string]registrar {
	return map[string]registrar{
		"ours":     NewTarget(map[int]Target{0: {Dir: dir}}),
		"buildkit": bkfilesync.NewFSSyncTarget(bkfilesync.WithFSSyncDir(0, dir)),
	}
}

var sendTime = time.Unix(1500000000, 123000)

func sampleTree() *memTree {
	big := strings.Repeat("x", 3<<20)
	m := newMemTree().dir("bin").dir("empty").file("big", big).file("empty-file", "")
	m.add(fstree.Entry{Path: "bin/su", Mode: fstree.ModeRegular | 0o4755, ModTime: sendTime}, "su")
	m.add(fstree.Entry{Path: "bin/ls", Mode: fstree.ModeSymlink | 0o777, Linkname: "/bin/su"}, "")
	m.add(fstree.Entry{Path: "fifo", Mode: fstree.ModeFifo | 0o600}, "")
	m.add(fstree.Entry{Path: "private", Mode: fstree.ModeDir | 0o500, ModTime: sendTime}, "")
	m.file("private/key", "secret")
	m.add(fstree.Entry{Path: "z-hard", Mode: fstree.ModeRegular | 0o4755, Hardlink: "bin/su", ModTime: sendTime}, "")
	m.add(fstree.Entry{Path: "gone", Whiteout: true}, "")
	m.add(fstree.Entry{Path: "agent.sock", Mode: fstree.ModeSocket | 0o600}, "") // nobody can be sent one
	return m
}

func TestSendTree(t *testing.T) {
	want := map[string]string{
		"bin": "drwxr-xr-x", "empty": "drwxr-xr-x", "big": "-rw-r--r-- " + strings.Repeat("x", 3<<20), "empty-file": "-rw-r--r-- ",
		"bin/su": "urwxr-xr-x su", "bin/ls": "-> /bin/su", "fifo": "prw-------", "private": "dr-x------", "private/key": "-rw-r--r-- secret",
		"z-hard": "urwxr-xr-x su", "kept": "-rw-r--r-- kept",
	}
	base := t.TempDir()
	for _, name := range []string{"ours", "buildkit"} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(base, name)
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			// What is there already: some stays, some is replaced by what the tree has under the name.
			for p, content := range map[string]string{"kept": "kept", "big": "old", "empty": "a file"} {
				if err := os.WriteFile(filepath.Join(dir, p), []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			c := connect(t, targets(dir)[name])
			for range 2 { // the second time over the first
				var sent atomic.Int64
				err := SendTree(t.Context(), c, 0, map[string]string{"x": "y"}, fsstat.NewTree(sampleTree()), func(n int64) { sent.Add(n) })
				if err != nil {
					t.Fatal(err)
				}
				if n := sent.Load(); n != 3<<20+int64(len("su")+len("secret")) {
					t.Errorf("%d bytes sent", n)
				}
				if d := cmp.Diff(want, readTree(t, dir)); d != "" {
					t.Fatalf("(-want +got)\n%s", d)
				}
			}
			for _, p := range []string{"bin/su", "private"} {
				if p == "private" && name == "buildkit" {
					continue // it does not keep times of directories
				}
				fi, err := os.Stat(filepath.Join(dir, p))
				if err != nil || fi.ModTime().UnixNano() != sendTime.UnixNano() {
					t.Errorf("%s: time %v, %v", p, fi.ModTime(), err)
				}
			}
			a, _ := os.Stat(filepath.Join(dir, "bin/su"))
			b, _ := os.Stat(filepath.Join(dir, "z-hard"))
			if !os.SameFile(a, b) {
				t.Error("hard link became a copy")
			}
		})
	}
}

func TestTargetWithBuildKitSender(t *testing.T) {
	src := writeTree(t, map[string]string{"a/b": "b", "c": "-> a/b"})
	fs, err := fsutil.NewFS(src)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "made", "by", "us")
	c := connect(t, NewTarget(map[int]Target{0: {Dir: dir}}))
	stream, err := bkfilesync.NewFileSendClient(c.Conn()).DiffCopy(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := fsutil.Send(stream.Context(), stream, fs, nil); err != nil {
		t.Fatal(err)
	}
	// It takes FIN for the end and never half-closes; our handler has returned by then.
	for {
		if err := stream.RecvMsg(&bkfilesync.BytesMessage{}); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if got := readTree(t, dir); got["a/b"] != "-rw-r--r-- b" || got["c"] != "-> a/b" {
		t.Errorf("%v", got)
	}
}

// A symlink in the target directory leads nothing out of it.
func TestTargetStaysInside(t *testing.T) {
	outside := writeTree(t, map[string]string{"f": "precious"})
	dir := writeTree(t, map[string]string{"d": "-> " + outside, "f": "-> " + filepath.Join(outside, "f")})
	c := connect(t, NewTarget(map[int]Target{0: {Dir: dir}}))
	if err := SendTree(t.Context(), c, 0, nil, fsstat.NewTree(newMemTree().dir("d").file("d/f", "evil").file("f", "evil")), nil); err != nil {
		t.Fatal(err)
	}
	if got := readTree(t, outside); got["f"] != "-rw-r--r-- precious" || len(got) != 1 {
		t.Errorf("outside: %v", got)
	}
	if got := readTree(t, dir); got["d/f"] != "-rw-r--r-- evil" || got["f"] != "-rw-r--r-- evil" {
		t.Errorf("inside: %v", got)
	}
}

func TestTargetOwner(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can change owners")
	}
	tree := newMemTree().add(fstree.Entry{Path: "f", Mode: fstree.ModeRegular | 0o644, UID: 12, GID: 34}, "x")
	for _, keep := range []bool{false, true} {
		dir := t.TempDir()
		c := connect(t, NewTarget(map[int]Target{0: {Dir: dir, KeepOwner: keep}}))
		if err := SendTree(t.Context(), c, 0, nil, fsstat.NewTree(tree), nil); err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(filepath.Join(dir, "f"))
		if err != nil {
			t.Fatal(err)
		}
		if st := fi.Sys().(*syscall.Stat_t); (st.Uid == 12 && st.Gid == 34) != keep {
			t.Errorf("keep %v: owner %d:%d", keep, st.Uid, st.Gid)
		}
	}
}

// sink is a target's writer.
type sink struct {
	bytes.Buffer
	closed  int
	aborted error
	fail    error // of Write
	failEnd error // of Close
}

func (s *sink) Write(p []byte) (int, error) {
	if s.fail != nil {
		return 0, s.fail
	}
	return s.Buffer.Write(p)
}
func (s *sink) Close() error    { s.closed++; return s.failEnd }
func (s *sink) Abort(err error) { s.aborted = err }

func TestSendStream(t *testing.T) {
	data := strings.Repeat("0123456789", 1<<20) // over any message limit in one Write
	open := func(s *sink, about *map[string]string) func(map[string]string) (io.WriteCloser, error) {
		return func(md map[string]string) (io.WriteCloser, error) {
			*about = md
			if s == nil {
				return nil, nil
			}
			return s, nil
		}
	}
	for _, kind := range []string{"ours", "buildkit"} {
		t.Run(kind, func(t *testing.T) {
			send := func(s *sink) (map[string]string, error) {
				var about map[string]string
				var r registrar = NewTarget(map[int]Target{0: {Open: open(s, &about)}})
				if kind == "buildkit" {
					r = bkfilesync.NewFSSyncTarget(bkfilesync.WithFSSync(0, open(s, &about)))
				}
				w, err := SendStream(t.Context(), connect(t, r), 0, map[string]string{"containerimage.digest": "sha256:x"})
				if err != nil {
					t.Fatal(err)
				}
				_, werr := io.WriteString(w, data)
				return about, errors.Join(werr, w.Close())
			}
			s := &sink{}
			about, err := send(s)
			if err != nil || s.String() != data || s.closed != 1 || s.aborted != nil {
				t.Errorf("%d bytes, closed %d, aborted %v, %v", s.Len(), s.closed, s.aborted, err)
			}
			if about["containerimage.digest"] != "sha256:x" {
				t.Errorf("metadata %v", about)
			}
			if _, err := send(nil); err != nil {
				t.Errorf("already there: %v", err)
			}
			if _, err := send(&sink{fail: errors.New("disk full")}); err == nil || !strings.Contains(err.Error(), "disk full") {
				t.Errorf("failing write: %v", err)
			}
			if _, err := send(&sink{failEnd: errors.New("rename refused")}); err == nil || !strings.Contains(err.Error(), "rename refused") {
				t.Errorf("failing close: %v", err)
			}
		})
	}
}

func TestSendStreamGivenUp(t *testing.T) {
	s := &sink{}
	closed := make(chan struct{})
	c := connect(t, NewTarget(map[int]Target{0: {Open: func(map[string]string) (io.WriteCloser, error) {
		return closer{s, closed}, nil
	}}}))
	ctx, cancel := context.WithCancel(t.Context())
	w, err := SendStream(ctx, c, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 2<<20)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := w.Close(); err == nil {
		t.Error("an export that was given up succeeded")
	}
	<-closed
	if s.aborted == nil {
		t.Error("the target was not told")
	}
}

type closer struct {
	*sink
	closed chan struct{}
}

func (c closer) Close() error { defer close(c.closed); return c.sink.Close() }

func TestUnsupported(t *testing.T) {
	c := connect(t)
	c.supports = func(string) bool { return false }
	if _, err := Sync(t.Context(), c, Request{Dir: "x"}); !errors.Is(err, session.ErrNotSupported) {
		t.Errorf("sync: %v", err)
	}
	if err := SendTree(t.Context(), c, 0, nil, fsstat.NewTree(newMemTree()), nil); !errors.Is(err, session.ErrNotSupported) {
		t.Errorf("tree: %v", err)
	}
	if _, err := SendStream(t.Context(), c, 0, nil); !errors.Is(err, session.ErrNotSupported) {
		t.Errorf("stream: %v", err)
	}
}

func TestSendTreeLarge(t *testing.T) {
	m := newMemTree()
	for i := range 2000 {
		m.file(fmt.Sprintf("f%04d", i), strings.Repeat("y", i))
	}
	dir := t.TempDir()
	c := connect(t, NewTarget(map[int]Target{0: {Dir: dir}}))
	if err := SendTree(t.Context(), c, 0, nil, fsstat.NewTree(m), nil); err != nil {
		t.Fatal(err)
	}
	if n := len(readTree(t, dir)); n != 2000 {
		t.Errorf("%d files", n)
	}
}
