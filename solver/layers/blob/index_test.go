package blob

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// short is what a tree holds: paths, with marks after them.
func short(tb testing.TB, t fstree.Tree) []string {
	tb.Helper()
	var lines []string
	err := fstree.Walk(tb.Context(), t, "", func(e fstree.Entry) error {
		l := e.Path
		if l == "" {
			l = "/"
		}
		switch {
		case e.Whiteout:
			l += " whiteout"
		case e.IsSymlink():
			l += " -> " + e.Linkname
		case e.Hardlink != "":
			l += " = " + e.Hardlink
		case e.IsRegular():
			b, err := fstree.ReadFile(tb.Context(), t, e.Path, 1<<20)
			if err != nil {
				return err
			}
			l += " " + string(b)
		case e.IsDir():
			if l != "/" {
				l += "/"
			}
		}
		if e.Opaque {
			l += " opaque"
		}
		if e.Implied {
			l += " implied"
		}
		lines = append(lines, l)
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return lines
}

func TestIndexMeaning(t *testing.T) {
	t.Parallel()
	overlay := file("f", "x").pax("SCHILY.xattr.trusted.overlay.redirect", "/etc", "SCHILY.xattr.user.overlay.opaque", "y",
		"SCHILY.xattr.user.mine", "z")
	node := entry{Header: tar.Header{Typeflag: tar.TypeChar, Name: "node"}}
	for _, tt := range []struct {
		name string
		in   []entry
		want []string
	}{
		{"nothing", nil, []string{"/ implied"}},
		{"missing parents", []entry{file("a/b/c", "x")}, []string{"/ implied", "a/ implied", "a/b/ implied", "a/b/c x"}},
		{"parent comes later", []entry{file("a/c", "x"), dir("a/")}, []string{"/ implied", "a/", "a/c x"}},
		{"absolute and unclean", []entry{file("/a/./b/../c", "x"), file("//d", "y")}, []string{"/ implied", "a/ implied", "a/c x", "d y"}},
		{"whiteout", []entry{file(".wh.a", ""), file("d/.wh.b", "")}, []string{"/ implied", "a whiteout", "d/ implied", "d/b whiteout"}},
		{"whiteout, then file", []entry{file(".wh.a", ""), file("a", "x")}, []string{"/ implied", "a x"}},
		{"file, then whiteout", []entry{file("a", "x"), file(".wh.a", "")}, []string{"/ implied", "a x"}},
		{"whiteout, then directory", []entry{file(".wh.a", ""), dir("a"), file("a/x", "")}, []string{"/ implied", "a/ opaque", "a/x "}},
		{"directory, then whiteout", []entry{dir("a"), file("a/x", ""), file(".wh.a", "")}, []string{"/ implied", "a/ opaque", "a/x "}},
		{"whiteout, then inside", []entry{file(".wh.a", ""), file("a/x", "")}, []string{"/ implied", "a/ opaque", "a/x "}},
		{"inside, then whiteout", []entry{file("a/x", ""), file(".wh.a", "")}, []string{"/ implied", "a/ opaque", "a/x "}},
		{"opaque", []entry{dir("a"), file("a/.wh..wh..opq", ""), file("a/x", "")}, []string{"/ implied", "a/ opaque", "a/x "}},
		{"opaque after", []entry{file("a/x", ""), file("a/.wh..wh..opq", "")}, []string{"/ implied", "a/ opaque implied", "a/x "}},
		{"opaque root", []entry{file(".wh..wh..opq", "")}, []string{"/ opaque implied"}},
		{"AUFS's own", []entry{file(".wh..wh.aufs", ""), dir(".wh..wh.orph"), file(".wh..wh.orph/x", ""), dir(".wh..wh.plnk/")}, []string{"/ implied"}},
		{"AUFS's links", []entry{file(".wh..wh.plnk/1.2", "x"), hardlink("a", ".wh..wh.plnk/1.2"), hardlink("b", ".wh..wh.plnk/1.2")},
			[]string{"/ implied", "a x", "b = a"}},
		{"last of several", []entry{file("a", "1"), symlink("a", "x"), file("a", "2")}, []string{"/ implied", "a 2"}},
		{"file over directory", []entry{dir("a"), file("a/x", ""), file("a", "1")}, []string{"/ implied", "a 1"}},
		{"directory over file", []entry{file("a", "1"), dir("a")}, []string{"/ implied", "a/ opaque"}},
		{"link outlives its first name", []entry{file("a", "1"), hardlink("b", "a"), hardlink("c", "a"), file("a", "2")},
			[]string{"/ implied", "a 2", "b 1", "c = b"}},
		{"first name sorts last", []entry{file("z", "1"), hardlink("a", "z")}, []string{"/ implied", "a 1", "z = a"}},
		{"symlinked parent", []entry{dir("usr/lib"), symlink("lib", "usr/lib"), file("lib/x", "1")},
			[]string{"/ implied", "lib -> usr/lib", "usr/ implied", "usr/lib/", "usr/lib/x 1"}},
		{"symlinked parent to nothing", []entry{symlink("lib", "/usr/lib"), file("lib/x", "1")},
			[]string{"/ implied", "lib -> /usr/lib", "usr/ implied", "usr/lib/ implied", "usr/lib/x 1"}},
		{"symlinked parent out of the root", []entry{symlink("a", "../../../etc"), file("a/passwd", "1")},
			[]string{"/ implied", "a -> ../../../etc", "etc/ implied", "etc/passwd 1"}},
		{"whiteout through a symlink", []entry{symlink("lib", "usr"), file("lib/.wh.x", "")},
			[]string{"/ implied", "lib -> usr", "usr/ implied", "usr/x whiteout"}},
		{"hard link through a symlink", []entry{dir("usr"), file("usr/x", "1"), symlink("lib", "usr"), hardlink("y", "lib/x")},
			[]string{"/ implied", "lib -> usr", "usr/", "usr/x 1", "y = usr/x"}},
		{"symlink over directory", []entry{file("lib/x", "1"), symlink("lib", "usr")}, []string{"/ implied", "lib -> usr"}},
		{"device that would be a whiteout", []entry{node}, []string{"/ implied"}},
		{"overlay attributes", []entry{overlay}, []string{"/ implied", "f x"}},
		{"root", []entry{dir("./"), dir("/")}, []string{"/"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, b := index(t, makeTar(t, tt.in...))
			got := short(t, b.Tree())
			if !slices.Equal(got, tt.want) {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
			s := b.Summary()
			has := func(mark string) bool {
				return slices.ContainsFunc(tt.want[1:], func(l string) bool { return strings.HasSuffix(l, mark) })
			}
			if s.Entries != len(tt.want)-1 || s.HasImplied != has("implied") || s.Empty != (len(tt.want) == 1 && strings.HasSuffix(tt.want[0], "/ implied")) ||
				s.HasWhiteouts != (has("whiteout") || has("opaque") || has("opaque implied") || strings.Contains(tt.want[0], "opaque")) {
				t.Errorf("summary %+v", s)
			}
			for _, e := range describe(t, b.Tree()) {
				if strings.Contains(e, "overlay.") {
					t.Errorf("overlay attribute: %s", e)
				}
			}
		})
	}
}

func TestIndexRefuses(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("d/", 1025)
	for _, tt := range []struct {
		name  string
		in    []entry
		err   error
		entry string
	}{
		{"up", []entry{file("../x", "")}, ErrUnsafePath, "../x"},
		{"up inside", []entry{file("a/../../x", "")}, ErrUnsafePath, "a/../../x"},
		{"up after a slash", []entry{file("/../x", "")}, ErrUnsafePath, "/../x"},
		{"link up", []entry{hardlink("x", "../y")}, ErrUnsafePath, "x"},
		{"link to nothing", []entry{hardlink("x", "y")}, ErrBadEntry, "x"},
		{"link to itself", []entry{hardlink("x", "x")}, ErrBadEntry, "x"},
		{"link to a directory", []entry{dir("y"), hardlink("x", "y")}, ErrBadEntry, "x"},
		{"link to a whiteout", []entry{file(".wh.y", ""), hardlink("x", "y")}, ErrBadEntry, "x"},
		{"inside a file", []entry{file("a", ""), file("a/b", "")}, ErrBadEntry, "a/b"},
		{"symlink loop", []entry{symlink("a", "b"), symlink("b", "a"), file("a/x", "")}, fstree.ErrLoop, "a/x"},
		{"whiteout of nothing", []entry{file("a/.wh.", "")}, ErrUnsafePath, "a/.wh."},
		{"whiteout of up", []entry{file("a/.wh...", "")}, ErrUnsafePath, "a/.wh..."},
		{"inside a whiteout", []entry{file(".wh.a/x", "")}, ErrUnsafePath, ".wh.a/x"},
		{"file as root", []entry{file(".", "")}, ErrBadEntry, "."},
		{"long name", []entry{file(strings.Repeat("n", 256), "")}, ErrLimit, strings.Repeat("n", 256)},
		{"long path", []entry{file(strings.Repeat("nnnnnnn/", 513)+"x", "")}, ErrLimit, ""},
		{"deep", []entry{file(deep+"x", "")}, ErrLimit, deep + "x"},
		{"deep through symlinks", []entry{symlink("s", strings.Repeat("d/", 900)), symlink("s/t", strings.Repeat("d/", 900)), file("s/t/x", "")}, ErrLimit, "s/t/x"},
		{"symlink target", []entry{symlink("s", strings.Repeat("t", 4096))}, ErrLimit, "s"},
		{"empty symlink", []entry{symlink("s", "")}, ErrBadEntry, "s"},
		{"attributes", []entry{file("x", "").pax("SCHILY.xattr.user.x", strings.Repeat("x", 65536))}, ErrLimit, "x"},
		{"all attributes", []entry{file("x", "").pax("SCHILY.xattr.user.x", strings.Repeat("x", 65000), "SCHILY.xattr.user.y",
			strings.Repeat("x", 65000), "SCHILY.xattr.user.z", strings.Repeat("x", 65000))}, ErrLimit, "x"},
		{"device", []entry{{Header: tar.Header{Typeflag: tar.TypeChar, Name: "c", Devmajor: 1 << 13}}}, ErrLimit, "c"},
		{"type", []entry{{Header: tar.Header{Typeflag: 'V', Name: "v"}}}, ErrUnsupported, "v"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in := makeTar(t, tt.in...)
			_, err := Index(t.Context(), bytes.NewReader(in), create(t), Limits{})
			if !errors.Is(err, tt.err) {
				t.Fatalf("got %v, want %v", err, tt.err)
			}
			if tt.entry == "" {
				return
			}
			var e *EntryError
			if !errors.As(err, &e) || e.Name != tt.entry {
				t.Errorf("error is about another entry: %v", err)
			}
		})
	}
}

// TestIndexHeaderBomb has PAX headers that want to be in memory.
func TestIndexHeaderBomb(t *testing.T) {
	t.Parallel()
	h := tarHeader{name: "x", flag: '0', xattrs: map[string]string{"user.x": strings.Repeat("x", 2<<20)}}
	if _, err := Index(t.Context(), bytes.NewReader(h.append(nil)), create(t), Limits{}); !errors.Is(err, ErrLimit) {
		t.Error(err)
	}
}

func TestIndexLimits(t *testing.T) {
	t.Parallel()
	in := makeTar(t, file("a/b", ""), file("c", "").pax("SCHILY.xattr.user.xxx", "12345"))
	for _, tt := range []struct {
		limits Limits
		ok     bool
	}{
		{Limits{Entries: 3}, true},
		{Limits{Entries: 2}, false},
		{Limits{Depth: 2, PathLen: 3, XattrBytes: 13}, true},
		{Limits{Depth: 1}, false},
		{Limits{PathLen: 2}, false},
		{Limits{XattrBytes: 12}, false},
	} {
		_, err := Index(t.Context(), bytes.NewReader(in), create(t), tt.limits)
		if tt.ok && err != nil || !tt.ok && !errors.Is(err, ErrLimit) {
			t.Errorf("%+v: %v", tt.limits, err)
		}
	}
}

func TestIndexSparseLimit(t *testing.T) {
	t.Parallel()
	for name, in := range sparseTars(t) {
		_, err := Index(t.Context(), bytes.NewReader(in), create(t), Limits{Expanded: 1 << 20})
		if !errors.Is(err, ErrLimit) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestIndexHuge has a file beyond 4 GiB, which costs neither memory nor disk.
func TestIndexHuge(t *testing.T) {
	t.Parallel()
	src := t.TempDir()
	const at = 5 << 30
	f, err := os.Create(src + "/huge")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("end"), at); err != nil {
		t.Skipf("no sparse files here: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	in := run(t, nil, src, "tar", "-S", "-c", "--format=posix", ".")
	out := create(t)
	sum, err := Index(t.Context(), strings.NewReader(in), out, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := Open(out, sum.Size)
	if err != nil {
		t.Fatal(err)
	}
	c, err := b.Tree().Open(t.Context(), "huge")
	if err != nil {
		t.Fatal(err)
	}
	check := func(r io.ReaderAt) {
		t.Helper()
		got := make([]byte, 4)
		if n, err := r.ReadAt(got, at-1); string(got[:n]) != "\x00end" || err != nil && !errors.Is(err, io.EOF) {
			t.Errorf("got %q, %v", got[:n], err)
		}
	}
	if c.Size() != at+3 {
		t.Errorf("size %d", c.Size())
	}
	check(c)
	m, err := os.Open(mountBlob(t, out) + "/huge")
	if err != nil {
		t.Fatal(err)
	}
	check(m)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(out.Fd()), &st); err != nil || st.Blocks*512 > 1<<20 {
		t.Errorf("%d bytes on disk, %v", st.Blocks*512, err)
	}
}

// TestIndexReadsAll takes what follows the end marker for part of the layer.
func TestIndexReadsAll(t *testing.T) {
	t.Parallel()
	in := makeTar(t, file("x", "1"))
	for name, tail := range map[string]string{
		"zeros": strings.Repeat("\x00", 9000), "junk": "junk", "much": strings.Repeat("junk", 300_000),
	} {
		all := append(slices.Clone(in), tail...)
		f := create(t)
		sum, err := Index(t.Context(), iotest.OneByteReader(bytes.NewReader(all)), f, Limits{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		b := reopen(t, f, sum)
		got, err := io.ReadAll(b.Tar())
		if err != nil || !bytes.Equal(got, all) {
			t.Errorf("%s: %d bytes of %d, %v", name, len(got), len(all), err)
		}
		if want := []string{"/ implied", "x 1"}; !slices.Equal(short(t, b.Tree()), want) {
			t.Errorf("%s: %q", name, short(t, b.Tree()))
		}
	}
}

func TestIndexSourceFails(t *testing.T) {
	t.Parallel()
	in := makeTar(t, file("x", strings.Repeat("x", 1<<20)), file("y", ""))
	boom := errors.New("boom")
	for _, n := range []int{0, 100, 512, 600, 300_000, 1 << 20, len(in) - 1} {
		_, err := Index(t.Context(), io.MultiReader(bytes.NewReader(in[:n]), iotest.ErrReader(boom)), create(t), Limits{})
		if !errors.Is(err, boom) {
			t.Errorf("failed after %d: %v", n, err)
		}
		_, err = Index(t.Context(), io.MultiReader(bytes.NewReader(in[:n]), iotest.ErrReader(io.ErrUnexpectedEOF)), create(t), Limits{})
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("broke off after %d: %v", n, err)
		}
	}
	for _, n := range []int{100, 600, 300_000, 1 << 20} {
		if _, err := Index(t.Context(), bytes.NewReader(in[:n]), create(t), Limits{}); err == nil {
			t.Errorf("cut to %d bytes: no error", n)
		}
	}
}

func TestIndexCancel(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	in := makeTar(t, file("x", strings.Repeat("x", 4<<20)))
	r := io.MultiReader(bytes.NewReader(in[:1<<20]), readerFunc(func([]byte) (int, error) {
		cancel()
		return 1, nil
	}))
	if _, err := Index(ctx, r, create(t), Limits{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestIndexWriteFails loses no error of the file it writes.
func TestIndexWriteFails(t *testing.T) {
	t.Parallel()
	f := create(t)
	ro, err := os.Open(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ro.Close() }()
	if _, err := Index(t.Context(), bytes.NewReader(makeTar(t, file("x", strings.Repeat("x", 4<<20)))), ro, Limits{}); err == nil {
		t.Error("wrote to a file open for reading")
	}
}
