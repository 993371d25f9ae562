package blob

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

func hashOf(tb testing.TB, r io.Reader) string {
	tb.Helper()
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		tb.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// odd are tars that GNU tar and a blob must make the same of.
func odd(tb testing.TB) map[string][]byte {
	tb.Helper()
	long := strings.Repeat("d/", 150)
	var chain []entry
	for i := 2; i <= len(long); i += 2 {
		chain = append(chain, dir(long[:i]))
	}
	at := func(s int64, ns int64) func(*tar.Header) {
		return func(h *tar.Header) { h.ModTime, h.Format = time.Unix(s, ns), tar.FormatPAX }
	}
	gnu := func(h *tar.Header) { h.Format = tar.FormatGNU }
	acl := "\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x02\x00\x06\x00\xe8\x03\x00\x00" +
		"\x04\x00\x05\x00\xff\xff\xff\xff\x10\x00\x07\x00\xff\xff\xff\xff\x20\x00\x05\x00\xff\xff\xff\xff"
	return map[string][]byte{
		"plain":      makeTar(tb, dir("./"), dir("a/"), file("a/x", "hello"), file("a/empty", ""), file("z", strings.Repeat("z", 100_000))),
		"hard links": makeTar(tb, dir("./"), file("b", "data"), dir("a/"), hardlink("a/b", "b"), hardlink("c", "a/b"), symlink("s", "b"), hardlink("t", "s")),
		"long paths": makeTar(tb, append(append([]entry{dir("./")}, chain...), file(long+strings.Repeat("n", 255), "x"))...),
		"gnu long": makeTar(tb, dir("./"), file(strings.Repeat("n", 200), "x").with(gnu),
			symlink("s", strings.Repeat("t", 300)).with(gnu)),
		"names": makeTar(tb, dir("./"), file("new\nline", "1"), file("bad\xff\xfeutf8", "2"), file("ü", "3"), file("-dash", "4"),
			file("!before dot", "5"), file("...", "6"), file("sp ace", "7"), file(strings.Repeat("m", 255), "8")),
		"symlinks": makeTar(tb, dir("./"), symlink("short", "x"), symlink("mid", strings.Repeat("m/", 220)),
			symlink("block", strings.Repeat("b", 512)), symlink("long", strings.Repeat("a/bcd/", 660)), symlink("abs", "/etc/passwd"),
			symlink("s1", strings.Repeat("1", 447)), symlink("s2", strings.Repeat("2", 448)), symlink("s3", strings.Repeat("3", 449))),
		"times": makeTar(tb, dir("./"), file("negative", "").with(at(-12345, 0)), file("half", "").with(at(-1, 500_000_000)),
			file("ns", "").with(at(1_700_000_000, 123_456_789)), file("2400", "").with(at(13_569_465_600, 0)), file("zero", "").with(at(0, 1))),
		"owners": makeTar(tb, dir("./"), file("big", "").with(func(h *tar.Header) { h.Uid, h.Gid = 2_000_000_000, 3_000_000_000 }),
			file("setuid", "").with(func(h *tar.Header) { h.Mode, h.Uid = 0o6755, 1000 }),
			dir("sticky").with(func(h *tar.Header) { h.Mode = 0o1777 })),
		"devices": makeTar(tb, dir("./"),
			entry{Header: tar.Header{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3}},
			entry{Header: tar.Header{Typeflag: tar.TypeBlock, Name: "blk", Mode: 0o600, Devmajor: 259, Devminor: 70_000}},
			entry{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o644}}),
		"xattrs": makeTar(tb, dir("./").pax("SCHILY.xattr.user.root", "r"),
			file("cap", "x").pax("SCHILY.xattr.security.capability", "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"),
			file("user", "y").pax("SCHILY.xattr.user.a", "1", "SCHILY.xattr.user.bin", "\x00\x01\xff", "SCHILY.xattr.user.empty", "",
				"SCHILY.xattr.user."+strings.Repeat("n", 240), strings.Repeat("v", 2000)),
			file("trusted", "z").pax("SCHILY.xattr.trusted.t", "1"),
			file("acl", "z").with(func(h *tar.Header) { h.Mode = 0o775 }).pax("SCHILY.xattr.system.posix_acl_access", acl),
			symlink("link", strings.Repeat("l", 300)).pax("SCHILY.xattr.trusted.link", strings.Repeat("q", 200))),
		"repeated": makeTar(tb, dir("./"), file("f", "first"), file("f", "second"), dir("d"), file("d/x", "x"),
			dir("d").with(func(h *tar.Header) { h.Mode = 0o700 })),
		"global header": makeTar(tb, entry{Header: tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "c"}}},
			dir("./"), file("f", "x")),
		"many":  makeTar(tb, append([]entry{dir("./")}, numbered(3000)...)...),
		"empty": makeTar(tb),
	}
}

func numbered(n int) []entry {
	es := []entry{dir("dir/")}
	for i := range n {
		es = append(es, file(fmt.Sprintf("dir/%s%d", strings.Repeat("x", i%200), i), fmt.Sprint(i)))
	}
	return es
}

// TestGolden holds a blob, as the kernel mounts it and as its own tree, against what GNU tar unpacks.
func TestGolden(t *testing.T) {
	t.Parallel()
	for name, in := range odd(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			golden(t, in)
		})
	}
	for name, in := range sparseTars(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			golden(t, in)
		})
	}
}

func golden(t *testing.T, in []byte) {
	t.Helper()
	f, b := index(t, in)
	if got := hashOf(t, b.Tar()); got != hashOf(t, bytes.NewReader(in)) {
		t.Error("the tar is not what went in")
	}
	unpacked, mounted := untar(t, in), mountBlob(t, f)
	mine, tars, kernels := describe(t, b.Tree()), describe(t, DirTree(unpacked)), describe(t, DirTree(mounted))
	for _, lines := range [][]string{mine, tars, kernels} {
		// A directory cannot say whether its own attributes are meant.
		lines[0] = strings.TrimSuffix(lines[0], " implied")
		if b.Summary().Empty {
			lines[0] = "root"
		}
	}
	same(t, "tree against tar", mine, tars)
	same(t, "mount against tar", kernels, tars)
	same(t, "find", findAll(t, mounted), findAll(t, unpacked))
	same(t, "getfattr", attrsAll(t, mounted), attrsAll(t, unpacked))
}

// findAll and attrsAll see with other eyes than ours.
func findAll(tb testing.TB, dir string) []string {
	out := run(tb, nil, dir, "find", ".", "-mindepth", "1", "-printf", `%P|%y|%m|%U|%G|%n|%T@|%l\0`)
	lines := strings.Split(out, "\x00")
	out = run(tb, nil, dir, "sh", "-c", `find . -type f -print0 | sort -z | xargs -0 -r sha256sum -z`)
	return sorted(append(lines, strings.Split(out, "\x00")...))
}

func attrsAll(tb testing.TB, dir string) []string {
	out := run(tb, nil, dir, "getfattr", "-R", "-P", "-h", "-d", "-m", "-", "-e", "hex", ".")
	return sorted(strings.Split(out, "\n\n"))
}

// sparseTars are made by GNU tar, in all its formats.
func sparseTars(tb testing.TB) map[string][]byte {
	tb.Helper()
	src := filepath.Join(tb.TempDir(), "src")
	if err := os.Mkdir(src, 0o755); err != nil {
		tb.Fatal(err)
	}
	for name, offs := range map[string][]int64{
		"a": {0, 1 << 20}, "b": {4096, 9 << 20}, "end": {1 << 20}, "many": {0, 65536, 131072, 262144, 524288, 1 << 20, 3 << 20},
	} {
		f, err := os.Create(filepath.Join(src, name))
		if err != nil {
			tb.Fatal(err)
		}
		for _, off := range offs {
			if _, err := f.WriteAt([]byte("data at "+fmt.Sprint(off)), off); err != nil {
				tb.Fatal(err)
			}
		}
		if err := f.Truncate(offs[len(offs)-1] + 100_000); err != nil {
			tb.Fatal(err)
		}
		if err := f.Close(); err != nil {
			tb.Fatal(err)
		}
	}
	tars := map[string][]byte{}
	for _, v := range []string{"0.0", "0.1", "1.0"} {
		tars["sparse "+v] = []byte(run(tb, nil, src, "tar", "-S", "-c", "--format=posix", "--sparse-version="+v, "."))
	}
	tars["sparse gnu"] = []byte(run(tb, nil, src, "tar", "-S", "-c", "--format=gnu", "."))
	return tars
}

// TestRoundTrip packs what was indexed: nothing may be lost, and a second time the bytes are the same.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	all := odd(t)
	all["layer"] = makeTar(t, dir("a/"), file("a/.wh..wh..opq", ""), file("a/.wh.gone", ""), file("b/c/d", "x"), file(".wh.z", ""),
		file(".wh..wh..opq", ""))
	for name, in := range all {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, b := index(t, in)
			want := describe(t, b.Tree())
			first := repack(t, b.Tree())
			same(t, "packed", describe(t, first.Tree()), want)
			// What was packed is a tar like any other.
			tarBytes, err := io.ReadAll(first.Tar())
			if err != nil {
				t.Fatal(err)
			}
			_, again := index(t, tarBytes)
			same(t, "packed and indexed", describe(t, again.Tree()), want)
			if d := repack(t, again.Tree()).Summary().DiffID; d != first.Summary().DiffID {
				t.Errorf("packed twice: %s, then %s", first.Summary().DiffID, d)
			}
			if got, want := again.Summary(), first.Summary(); got != want {
				t.Errorf("indexed: %+v, packed: %+v", got, want)
			}
		})
	}
}

func repack(tb testing.TB, t fstree.Tree) *Blob {
	tb.Helper()
	f := create(tb)
	sum, err := Pack(tb.Context(), fstree.NewSource(t), f)
	if err != nil {
		tb.Fatal(err)
	}
	return reopen(tb, f, sum)
}

func sorted(s []string) []string {
	slices.Sort(s)
	return s
}
