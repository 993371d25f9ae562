package engineapi

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/util/archiveutil"
)

// tarOf makes a tar of one file in a format; PAX begins with extended attributes.
func tarOf(t testing.TB, format tar.Format) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	h := &tar.Header{Name: "Dockerfile", Mode: 0o644, Size: 13, Format: format, Typeflag: tar.TypeReg}
	if format == tar.FormatPAX {
		h.ModTime = time.Unix(1, 5e8)
		h.PAXRecords = map[string]string{"SLIPWAY.long": strings.Repeat("x", 2000)}
	}
	if err := w.WriteHeader(h); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("FROM scratch\n")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestEveryTarIsRecognised(t *testing.T) {
	t.Parallel()
	for name, in := range map[string][]byte{"ustar": tarOf(t, tar.FormatUSTAR), "pax": tarOf(t, tar.FormatPAX), "gnu": tarOf(t, tar.FormatGNU)} {
		out, err := io.ReadAll(recognisable(io.NopCloser(bytes.NewReader(in))))
		if err != nil || !archiveutil.IsArchive(out[:min(len(out), frontendPeek)]) {
			t.Errorf("%s: %v, not recognised", name, err)
		}
		if archiveutil.HasGzipPrefix(out) {
			z, err := gzip.NewReader(bytes.NewReader(out))
			if err != nil {
				t.Fatal(err)
			}
			if out, err = io.ReadAll(z); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(in, out) {
			t.Errorf("%s: changed on the way", name)
		}
	}
}

func TestWhatIsNoTarIsLeftAsItIs(t *testing.T) {
	t.Parallel()
	for _, in := range []string{"", "FROM scratch\n", strings.Repeat("RUN x\n", 1000), "\x1f\x8b\x08", strings.Repeat("\x00", 2048)} {
		out, err := io.ReadAll(recognisable(io.NopCloser(strings.NewReader(in))))
		if err != nil || string(out) != in {
			t.Errorf("%q: %q, %v", in, out, err)
		}
	}
}

func FuzzContext(f *testing.F) {
	f.Add(tarOf(f, tar.FormatPAX))
	f.Add(tarOf(f, tar.FormatGNU))
	f.Add([]byte("FROM scratch\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := io.ReadAll(recognisable(io.NopCloser(bytes.NewReader(in))))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(in, out) {
			return
		}
		z, err := gzip.NewReader(bytes.NewReader(out))
		if err != nil {
			t.Fatal(err)
		}
		if back, err := io.ReadAll(z); err != nil || !bytes.Equal(back, in) {
			t.Errorf("%d bytes become %d, %v", len(in), len(back), err)
		}
	})
}
