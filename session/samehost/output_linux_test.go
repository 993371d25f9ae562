package samehost_test

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
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/filesync"
	"github.com/slipwaybuild/slipway/session/samehost"
	"github.com/slipwaybuild/slipway/session/samehost/samehosttest"
	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"
)

// hostTree is a directory as a tree to be sent.
type hostTree struct {
	dir  *samehost.Dir
	path string
}

func (h hostTree) Walk(ctx context.Context, f func(*types.Stat) error) error {
	return h.dir.Select(ctx, samehost.Selection{}, func(e samehost.Entry) error { return f(e.Stat) })
}

func (h hostTree) Open(_ context.Context, p string) (io.ReadCloser, error) {
	return os.Open(filepath.Join(h.path, p))
}

// describe says all of what is below a directory.
func describe(t testing.TB, dir string) map[string]string {
	t.Helper()
	out, first := map[string]string{}, map[uint64]string{}
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		s := fmt.Sprintf("%o %d:%d %d", st.Mode, st.Uid, st.Gid, st.Mtim.Nano())
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			if other, ok := first[st.Ino]; ok {
				s += " = " + other
			} else {
				first[st.Ino] = rel
			}
			s += fmt.Sprintf(" %d %x", len(b), b[:min(len(b), 40)])
			if n, err := unix.Getxattr(p, "user.test", make([]byte, 100)); err == nil {
				s += fmt.Sprint(" xattr ", n)
			}
		case unix.S_IFLNK:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			s += " -> " + to
		case unix.S_IFCHR:
			s += fmt.Sprint(" device ", st.Rdev)
		}
		out[rel] = s
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// inTheWay makes what an export finds where it goes: the same and other things in other shapes.
func inTheWay(t testing.TB, dir string) {
	t.Helper()
	p := func(name string) string { return filepath.Join(dir, name) }
	outside := t.TempDir()
	for _, err := range []error{
		os.MkdirAll(p("a-b/full"), 0o755), os.WriteFile(p("a-b/full/f"), nil, 0o644), // a directory where a file goes
		os.WriteFile(p("empty"), []byte("file"), 0o644), // a file where a directory goes
		os.Symlink(outside, p("src")),                   // a link where a directory goes
		os.MkdirAll(p("a/b/old"), 0o755), os.WriteFile(p("a/b/old/x"), nil, 0o644), os.Chmod(p("a/b"), 0o500),
		os.WriteFile(p("a/x.go"), []byte("a longer one than what comes"), 0o600), os.Link(p("a/x.go"), p("a/again.go")), os.Link(p("a/x.go"), p("keeps")),
		os.Symlink("x.go", p("a/y.txt")), os.WriteFile(p("dangling"), nil, 0o644), os.WriteFile(p(".slipway-export-a.b"), []byte("left"), 0o644),
		os.MkdirAll(p("zz/link"), 0o755), os.MkdirAll(p("other/dir"), 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"a/b/old/x", "a/b/old", "keeps", "other/dir", "other"} {
		if err := os.Chtimes(p(name), time.Unix(1, 0), time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if l, err := os.ReadDir(outside); len(l) > 0 || err != nil {
			t.Errorf("written through a link: %v, %v", l, err)
		}
	})
}

// What the daemon writes is what the client would have written.
func TestWrittenAsTheClientWould(t *testing.T) {
	src := odd(t)
	big := bytes.Repeat([]byte("0123456789"), 300<<10)
	if err := os.WriteFile(filepath.Join(src, "a/big"), big, 0o640); err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		if err := os.WriteFile(filepath.Join(src, "zz", fmt.Sprint("f", i)), bytes.Repeat([]byte{byte(i)}, i*500), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d := serve(t)
	tree := hostTree{open(t, d, src), src}
	for name, to := range map[string]filesync.Target{
		"new": {}, "kept owners": {KeepOwner: os.Geteuid() == 0}, "over others": {}, "deleting": {Delete: true, KeepOwner: os.Geteuid() == 0},
	} {
		t.Run(name, func(t *testing.T) {
			mine, theirs := filepath.Join(t.TempDir(), "mine"), filepath.Join(t.TempDir(), "theirs")
			if name == "over others" || name == "deleting" {
				for _, dir := range []string{mine, theirs} {
					if err := os.Mkdir(dir, 0o755); err != nil {
						t.Fatal(err)
					}
					inTheWay(t, dir)
				}
			}
			to.Dir = theirs
			o := samehost.Offer{Targets: map[int]samehost.Target{2: {Dir: mine, KeepOwner: to.KeepOwner, Delete: to.Delete}}}
			c := d.Client(t, o, filesync.NewTarget(map[int]filesync.Target{2: to}))
			out, err := d.Host.OpenTree(t.Context(), c, 2)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(out.Write(t.Context(), tree, nil), out.Close()); err != nil {
				t.Fatal(err)
			}
			if err := filesync.SendTree(t.Context(), c, 2, nil, tree, nil); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(describe(t, theirs), describe(t, mine)); diff != "" {
				t.Errorf("the client writes (-), the daemon writes (+):\n%s", diff)
			}
		})
	}
}

// failing is a tree that breaks.
type failing struct {
	hostTree
	walk, open bool
}

var errBroken = errors.New("broken")

func (f failing) Walk(ctx context.Context, fn func(*types.Stat) error) error {
	if err := f.hostTree.Walk(ctx, fn); err != nil || !f.walk {
		return err
	}
	return errBroken
}

func (f failing) Open(ctx context.Context, p string) (io.ReadCloser, error) {
	if f.open && strings.HasSuffix(p, "main.go") {
		return nil, errBroken
	}
	return f.hostTree.Open(ctx, p)
}

func TestExportsThatBreak(t *testing.T) {
	src := odd(t)
	d := serve(t)
	tree := hostTree{open(t, d, src), src}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		src  filesync.Tree
		ctx  context.Context
		want error
	}{
		"walk":      {failing{tree, true, false}, t.Context(), errBroken},
		"contents":  {failing{tree, false, true}, t.Context(), errBroken},
		"cancelled": {tree, cancelled, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			caller := d.Client(t, samehost.Offer{Targets: map[int]samehost.Target{0: {Dir: t.TempDir()}}})
			out, err := d.Host.OpenTree(t.Context(), caller, 0)
			if err != nil {
				t.Fatal(err)
			}
			before := openFiles(t)
			if err := out.Write(c.ctx, c.src, nil); !errors.Is(err, c.want) {
				t.Errorf("%v", err)
			}
			if after := openFiles(t); after > before {
				t.Errorf("%d descriptors were open, now %d", before, after)
			}
			if err := out.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func openFiles(t testing.TB) int {
	l, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(l)
}

// file is a client's file that becomes visible when it is whole.
type file struct {
	*os.File
	to    string
	ended []error
	fails error
}

func (f *file) Control(use func(uintptr)) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(use)
}

func (f *file) End(cause error) error {
	f.ended = append(f.ended, cause)
	if cause == nil && f.fails == nil {
		return errors.Join(f.Close(), os.Rename(f.Name(), f.to))
	}
	return errors.Join(f.fails, f.Close(), os.Remove(f.Name()))
}

func streamTo(t *testing.T, d *samehosttest.Daemon, f *file) (session.Caller, *map[string]string) {
	t.Helper()
	var told map[string]string
	return d.Client(t, samehost.Offer{Targets: map[int]samehost.Target{0: {Open: func(about map[string]string) (samehost.File, error) {
		told = about
		if f == nil {
			return nil, nil
		}
		var err error
		f.File, err = os.CreateTemp(filepath.Dir(f.to), ".new")
		return f, err
	}}}}), &told
}

func TestStreams(t *testing.T) {
	d := serve(t)
	content := bytes.Repeat([]byte("stream"), 1<<19)
	for name, c := range map[string]struct {
		abort bool
		fails error
	}{"whole": {}, "given up": {abort: true}, "cannot be published": {fails: syscall.ENOSPC}} {
		t.Run(name, func(t *testing.T) {
			f := &file{to: filepath.Join(t.TempDir(), "out"), fails: c.fails}
			caller, told := streamTo(t, d, f)
			s, err := d.Host.OpenStream(t.Context(), caller, 0, map[string]string{"k": "v"})
			if err != nil {
				t.Fatal(err)
			}
			if (*told)["k"] != "v" {
				t.Errorf("told %v", *told)
			}
			for b := content; len(b) > 0; b = b[min(len(b), 77_777):] {
				if _, err := s.Write(b[:min(len(b), 77_777)]); err != nil {
					t.Fatal(err)
				}
			}
			if c.abort {
				s.Abort()
				err = s.Close()
			} else {
				err = s.Close()
			}
			if (err == nil) != (!c.abort && c.fails == nil) {
				t.Errorf("closed: %v", err)
			}
			got, rerr := os.ReadFile(f.to)
			if name == "whole" && !bytes.Equal(got, content) || name != "whole" && !errors.Is(rerr, fs.ErrNotExist) {
				t.Errorf("%d bytes, %v", len(got), rerr)
			}
			if l, _ := os.ReadDir(filepath.Dir(f.to)); name != "whole" && len(l) > 0 {
				t.Errorf("left: %v", l)
			}
			if len(f.ended) != 1 {
				t.Errorf("ended %d times", len(f.ended))
			}
		})
	}
	t.Run("there already", func(t *testing.T) {
		caller, _ := streamTo(t, d, nil)
		s, err := d.Host.OpenStream(t.Context(), caller, 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write(content); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// A root daemon writes for a user what that user could write, as theirs.
func TestDaemonWritesAsItsClient(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to be two users")
	}
	src := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(src, "d"), 0o755), os.WriteFile(filepath.Join(src, "d/f"), []byte("x"), 0o4755)); err != nil {
		t.Fatal(err)
	}
	d := serve(t)
	tree := hostTree{open(t, d, src), src}
	top := t.TempDir()
	for p := top; p != "/tmp" && p != "/"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	theirs, roots := filepath.Join(top, "theirs"), filepath.Join(top, "roots")
	if err := errors.Join(os.Mkdir(theirs, 0o755), os.Chown(theirs, 1234, 1234), os.Mkdir(roots, 0o755)); err != nil {
		t.Fatal(err)
	}
	write := func(dir string, keep bool) error {
		out, err := samehost.TreeAs(dir, 1234, keep)
		if err != nil {
			t.Fatal(err)
		}
		return errors.Join(out.Write(t.Context(), tree, nil), out.Close())
	}
	if err := write(theirs, false); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"d", "d/f"} {
		fi, err := os.Stat(filepath.Join(theirs, name))
		if err != nil {
			t.Fatal(err)
		}
		if st := fi.Sys().(*syscall.Stat_t); st.Uid != 1234 || st.Gid != 1234 {
			t.Errorf("%s belongs to %d:%d", name, st.Uid, st.Gid)
		}
	}
	if err := write(roots, false); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("into root's directory: %v", err)
	}
	if l, _ := os.ReadDir(roots); len(l) > 0 {
		t.Errorf("in root's directory: %v", l)
	}
	if err := write(theirs, true); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("owners that a user cannot give: %v", err)
	}
}
