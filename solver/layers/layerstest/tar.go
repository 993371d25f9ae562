package layerstest

import (
	"archive/tar"
	"bytes"
	"syscall"
	"testing"
	"time"

	digest "github.com/opencontainers/go-digest"
)

// Epoch is the time of everything in test layers that has no other.
var Epoch = time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)

// Dir is the header of a directory.
func Dir(name string, mode int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}
}

// Link is the header of a symlink.
func Link(name, target string) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}
}

// HardLink is the header of a further name of a file.
func HardLink(name, target string) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}
}

// Whiteout is the header that removes a name from the layers below.
func Whiteout(dir, name string) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: dir + ".wh." + name, Mode: 0o600}
}

// Node is the header of a device.
func Node(name string, major, minor int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeChar, Name: name, Mode: 0o620, Devmajor: major, Devminor: minor}
}

// A File is a header with content.
type File struct {
	*tar.Header
	Data string
}

// Text is a regular file.
func Text(name, data string) File {
	return File{&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, data}
}

// Tar makes a tar of headers and Files, and its digest.
func Tar(tb testing.TB, entries ...any) ([]byte, digest.Digest) {
	tb.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		var h tar.Header
		var data string
		switch e := e.(type) {
		case *tar.Header:
			h = *e
		case File:
			h, data = *e.Header, e.Data
			h.Size = int64(len(data))
		default:
			tb.Fatalf("%T in a test tar", e)
		}
		if h.ModTime.IsZero() {
			h.ModTime = Epoch
		}
		h.Format = tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			tb.Fatal(err)
		}
		if _, err := w.Write([]byte(data)); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes(), digest.FromBytes(buf.Bytes())
}

func isRoot() bool { return syscall.Geteuid() == 0 }
