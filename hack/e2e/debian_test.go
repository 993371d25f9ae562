package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	ggcrtar "github.com/google/go-containerregistry/pkg/v1/tarball"
)

// buildProbe compiles the program that images and tests look at file systems with.
func buildProbe(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "probe")
	cmd := exec.Command("go", "build", "-o", path, "./probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build probe: %v\n%s", err, out)
	}
	return path
}

// tarFile is an entry of a layer's tar.
type tarFile struct {
	tar.Header
	content string
}

// old is when files of base images were last changed: long ago, and not on a whole second.
var old = time.Date(2001, 9, 9, 1, 46, 40, 123456789, time.UTC)

// tarReg, tarDir, tarSym and tarHard make entries as they commonly are.
func tarReg(name, content string) tarFile {
	return tarFile{tar.Header{Name: name, Mode: 0o644, ModTime: old}, content}
}

func tarDir(name string) tarFile {
	return tarFile{tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, ModTime: old.Add(-time.Hour)}, ""}
}

func tarSym(name, target string) tarFile {
	return tarFile{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777, ModTime: old}, ""}
}

func tarHard(name, target string) tarFile {
	return tarFile{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644, ModTime: old}, ""}
}

// with returns the entry with mode, owner and extended attributes, given as name and value in turn.
func (f tarFile) with(mode int64, uid, gid int, xattrs ...string) tarFile {
	f.Mode, f.Uid, f.Gid = mode, uid, gid
	f.PAXRecords = map[string]string{}
	for i := 0; i < len(xattrs); i += 2 {
		f.PAXRecords["SCHILY.xattr."+xattrs[i]] = xattrs[i+1]
	}
	return f
}

func (f tarFile) at(t time.Time) tarFile {
	f.ModTime = t
	return f
}

// tarOf is a layer as other tools write it.
func tarOf(t testing.TB, files ...tarFile) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if f.Typeflag == 0 {
			f.Typeflag = tar.TypeReg
		}
		f.Size, f.Format = int64(len(f.content)), tar.FormatPAX
		if err := w.WriteHeader(&f.Header); err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		if _, err := io.WriteString(w, f.content); err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// layerOf is a tar as a layer that registries hold gzipped.
func layerOf(t testing.TB, tar []byte, options ...ggcrtar.LayerOption) v1.Layer {
	t.Helper()
	l, err := ggcrtar.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(tar)), nil }, options...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// busyboxTar is a root file system of Debian's static busybox.
func busyboxTar(t testing.TB) []byte {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Skipf("needs busybox: %v", err)
	}
	binary, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	applets, err := exec.Command(path, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	files := []tarFile{tarDir("bin"), tarDir("etc"), tarDir("tmp").with(0o1777, 0, 0), tarReg("bin/busybox", string(binary)).with(0o755, 0, 0)}
	for name := range strings.FieldsSeq(string(applets)) {
		if name != "busybox" {
			files = append(files, tarSym("bin/"+name, "busybox"))
		}
	}
	return tarOf(t, append(files, tarReg("etc/passwd", "root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n"))...)
}

// debianTar is a minimal Debian, as a file system in which packages were unpacked and configured.
func debianTar(t testing.TB) []byte {
	t.Helper()
	if os.Getenv("SLIPWAY_E2E_DEBIAN") == "" {
		t.Skip("SLIPWAY_E2E_DEBIAN is not set: installing Debian takes a minute and 60 MB from a mirror; the test on busybox covers the same ground")
	}
	path, err := exec.LookPath("mmdebstrap")
	if err != nil {
		t.Skipf("needs mmdebstrap: %v", err)
	}
	rootfs := filepath.Join(t.TempDir(), "root.tar")
	if out, err := exec.CommandContext(t.Context(), path, "--variant=minbase", "bookworm", rootfs).CombinedOutput(); err != nil {
		t.Fatalf("mmdebstrap: %v\n%s", err, out)
	}
	b, err := os.ReadFile(rootfs)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// lowerTars are two layers of files for steps to change, the second of which hides some of the first.
func lowerTars(t testing.TB) [][]byte {
	long := strings.Repeat("n", 200)
	return [][]byte{
		tarOf(t,
			tarDir("lower"), tarReg("lower/untouched", "as it was"), tarReg("lower/untouched-ns", "").at(old.Add(987)),
			tarReg("lower/epoch", "1970").at(time.Unix(0, 0)), tarReg("lower/future", "2100").at(time.Date(2100, 1, 2, 3, 4, 5, 0, time.UTC)),
			tarReg("lower/before", "1960").at(time.Date(1960, 1, 2, 3, 4, 5, 0, time.UTC)),
			tarReg("lower/setuid", "s").with(0o4755, 0, 0), tarReg("lower/setgid", "s").with(0o2755, 3, 4), tarDir("lower/sticky").with(0o1777, 5, 6),
			tarReg("lower/xattr", "x").with(0o600, 70000, 4000000000, "user.color", "blue", "user.binary", "a\x00b\xff"),
			tarReg("lower/caps", "c").with(0o755, 0, 0, "security.capability", "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"),
			tarDir("lower/xdir").with(0o750, 1, 2, "user.dir", "d"),
			tarReg("lower/hard1", "one file"), tarHard("lower/hard2", "lower/hard1"), tarHard("lower/hard3", "lower/hard1"),
			tarReg("lower/kept1", "other file"), tarHard("lower/kept2", "lower/kept1"),
			tarSym("lower/link", "untouched"), tarSym("lower/dangling", "/no/where"), tarSym("lower/dirlink", "sticky"),
			tarFile{tar.Header{Typeflag: tar.TypeFifo, Name: "lower/fifo", Mode: 0o622, ModTime: old}, ""},
			tarFile{tar.Header{Typeflag: tar.TypeChar, Name: "lower/null", Mode: 0o666, Devmajor: 1, Devminor: 3, ModTime: old}, ""},
			tarFile{tar.Header{Typeflag: tar.TypeBlock, Name: "lower/disk", Mode: 0o660, Gid: 6, Devmajor: 8, Devminor: 17, ModTime: old}, ""},
			tarReg("lower/ spaces and\ttabs\nand lines ", "odd"), tarReg("lower/ünïcödé", "odd"), tarReg("lower/-dash", "odd"), tarReg(`lower/back\slash"quote`, "odd"),
			tarReg("lower/"+long, "long"), tarDir("lower/"+long+".d"), tarReg("lower/"+long+".d/"+long, "longer than a tar's header has room for"),
			tarDir("lower/replaced"), tarReg("lower/replaced/gone", "1"), tarDir("lower/replaced/sub"), tarReg("lower/replaced/sub/gone", "2"),
			tarDir("lower/renamed"), tarReg("lower/renamed/inside", "3").with(0o640, 8, 9), tarHard("lower/renamed/inside2", "lower/renamed/inside"),
			tarDir("lower/deleted"), tarReg("lower/deleted/gone", "4"), tarReg("lower/deletedfile", "5"),
			tarDir("lower/dir-to-file"), tarReg("lower/dir-to-file/gone", "6"), tarReg("lower/file-to-dir", "7"),
			tarDir("lower/dir-to-link"), tarReg("lower/dir-to-link/gone", "8"), tarSym("lower/link-to-dir", "sticky"),
			tarDir("lower/whited"), tarReg("lower/whited/gone", "9"), tarReg("lower/whited/kept", "10"),
			tarDir("lower/opaque"), tarReg("lower/opaque/gone", "11"), tarReg("lower/replacedbelow", "first"),
			tarReg("lower/meta", "only what it is called"), tarReg("lower/append", "begin "), tarReg("lower/big", strings.Repeat("0123456789abcdef", 20000)),
		),
		tarOf(t,
			tarReg("lower/whited/.wh.gone", ""), tarDir("lower/opaque"), tarReg("lower/opaque/.wh..wh..opq", ""), tarReg("lower/opaque/new", "12"),
			tarReg("lower/replacedbelow", "second").at(old.Add(time.Hour)), tarReg("implied/by/a/file", "13"),
		),
	}
}

// gzipTo writes bytes to a gzip file.
func gzipTo(t testing.TB, path string, b []byte) {
	t.Helper()
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, z.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
