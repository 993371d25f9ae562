package blob

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"golang.org/x/sys/unix"
)

// entry is an entry of a tar in a test.
type entry struct {
	tar.Header
	body string
}

func file(name, body string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(body))}, body}
}

func dir(name string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}}
}

func symlink(name, to string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}}
}

func hardlink(name, to string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}}
}

func (e entry) pax(kv ...string) entry {
	e.PAXRecords = map[string]string{}
	for i := 0; i < len(kv); i += 2 {
		e.PAXRecords[kv[i]] = kv[i+1]
	}
	return e
}

func (e entry) with(f func(*tar.Header)) entry {
	f(&e.Header)
	return e
}

func makeTar(tb testing.TB, es ...entry) []byte {
	tb.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range es {
		if e.ModTime.IsZero() && e.Typeflag != tar.TypeXGlobalHeader {
			e.ModTime = time.Unix(1_700_000_000, 0)
		}
		if err := w.WriteHeader(&e.Header); err != nil {
			tb.Fatalf("%q: %v", e.Name, err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			tb.Fatalf("%q: %v", e.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// index makes a blob of in and opens it.
func index(tb testing.TB, in []byte) (*os.File, *Blob) {
	tb.Helper()
	f := create(tb)
	sum, err := Index(tb.Context(), bytes.NewReader(in), f, Limits{})
	if err != nil {
		tb.Fatal(err)
	}
	return f, reopen(tb, f, sum)
}

// reopen opens a blob that was just made, and holds it to what was said of it.
func reopen(tb testing.TB, f *os.File, sum Summary) *Blob {
	tb.Helper()
	st, err := f.Stat()
	if err != nil {
		tb.Fatal(err)
	}
	b, err := Open(f, st.Size())
	if err != nil {
		tb.Fatal(err)
	}
	if b.Summary() != sum {
		tb.Errorf("opened: %+v, made: %+v", b.Summary(), sum)
	}
	if err := b.Verify(tb.Context()); err != nil {
		tb.Error(err)
	}
	return b
}

// describe is a line for everything in t.
func describe(tb testing.TB, t fstree.Tree) []string {
	tb.Helper()
	var lines []string
	err := fstree.Walk(tb.Context(), t, "", func(e fstree.Entry) error {
		lines = append(lines, describeEntry(tb, t, e))
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return lines
}

func describeEntry(tb testing.TB, t fstree.Tree, e fstree.Entry) string {
	tb.Helper()
	if e.Whiteout {
		return fmt.Sprintf("%q whiteout", e.Path)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%q %o %d:%d %d.%09d", e.Path, e.Mode, e.UID, e.GID, e.ModTime.Unix(), e.ModTime.Nanosecond())
	if e.Mode&fstree.ModeType == fstree.ModeChar || e.Mode&fstree.ModeType == fstree.ModeBlock {
		fmt.Fprintf(&b, " dev=%d:%d", e.Major, e.Minor)
	}
	if e.IsSymlink() {
		fmt.Fprintf(&b, " ->%q", e.Linkname)
	}
	if e.Hardlink != "" {
		fmt.Fprintf(&b, " =%q", e.Hardlink)
	}
	if e.Opaque {
		b.WriteString(" opaque")
	}
	if e.Implied {
		b.WriteString(" implied")
	}
	for _, k := range slices.Sorted(maps.Keys(e.Xattrs)) {
		fmt.Fprintf(&b, " %s=%q", k, e.Xattrs[k])
	}
	if e.IsRegular() {
		c, err := t.Open(tb.Context(), e.Path)
		if err != nil {
			tb.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if c.Size() != e.Size {
			tb.Errorf("%q: opened size %d, entry %d", e.Path, c.Size(), e.Size)
		}
		fmt.Fprintf(&b, " %d %s", e.Size, hashOf(tb, io.NewSectionReader(c, 0, c.Size())))
	}
	return b.String()
}

// same compares descriptions.
func same(tb testing.TB, what string, got, want []string) {
	tb.Helper()
	if slices.Equal(got, want) {
		return
	}
	for _, l := range got {
		if !slices.Contains(want, l) {
			tb.Errorf("%s: has %s", what, l)
		}
	}
	for _, l := range want {
		if !slices.Contains(got, l) {
			tb.Errorf("%s: lacks %s", what, l)
		}
	}
	if !tb.Failed() {
		tb.Errorf("%s: order differs", what)
	}
}

// mountBlob mounts a blob as the kernel sees it.
func mountBlob(tb testing.TB, f *os.File) string {
	tb.Helper()
	if os.Getuid() != 0 {
		tb.Skip("mounting takes root")
	}
	dir := tb.TempDir()
	err := unix.Mount(f.Name(), dir, "erofs", unix.MS_RDONLY, "")
	if err == unix.ENODEV || err == unix.ENOTBLK || err == unix.EPERM {
		tb.Skipf("no file-backed EROFS here: %v", err)
	}
	if err != nil {
		tb.Fatalf("mount blob: %v", err)
	}
	tb.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			tb.Errorf("unmount: %v", err)
		}
	})
	return dir
}

func needRoot(tb testing.TB) {
	tb.Helper()
	if os.Getuid() != 0 {
		tb.Skip("devices and owners take root")
	}
}

func run(tb testing.TB, stdin io.Reader, dir, name string, args ...string) string {
	tb.Helper()
	if _, err := exec.LookPath(name); err != nil {
		tb.Skipf("%s is not here: %v", name, err)
	}
	c := exec.CommandContext(context.WithoutCancel(tb.Context()), name, args...)
	c.Dir, c.Stdin = dir, stdin
	c.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		tb.Fatalf("%s %s: %v\n%s", name, args, err, stderr.String())
	}
	return string(out)
}

// untar unpacks in with GNU tar.
func untar(tb testing.TB, in []byte) string {
	tb.Helper()
	needRoot(tb)
	dir := filepath.Join(tb.TempDir(), "root")
	if err := os.Mkdir(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	run(tb, bytes.NewReader(in), dir, "tar", "-x", "-p", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-f", "-")
	return dir
}
