package decompress

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func gz(tb testing.TB, data string) []byte {
	tb.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(data)); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func zst(tb testing.TB, data string) []byte {
	tb.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		tb.Fatal(err)
	}
	return w.EncodeAll([]byte(data), nil)
}

func xzed(tb testing.TB, data string) []byte {
	tb.Helper()
	var b bytes.Buffer
	w, err := xz.NewWriter(&b)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := w.Write([]byte(data)); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func TestFormats(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("some bytes that repeat ", 100_000)
	bz, err := base64.StdEncoding.DecodeString("QlpoOTFBWSZTWcHAgOIAAAFBAAAQAkSgADDNAMNGKZcXckU4UJDBwIDi")
	if err != nil {
		t.Fatal(err)
	}
	skippable := append([]byte{0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 'h', 'i'}, zst(t, long)...)
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"gzip": {gz(t, long), long}, "gzip members": {append(gz(t, "a"), gz(t, "b")...), "ab"},
		"zstd": {zst(t, long), long}, "zstd frames": {append(zst(t, "a"), zst(t, "b")...), "ab"}, "zstd skippable": {skippable, long},
		"xz": {xzed(t, long), long}, "bzip2": {bz, "hello\n"}, "plain": {[]byte(long), long}, "nothing": {nil, ""}, "short": {[]byte{0x1f}, "\x1f"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := NewReader(bytes.NewReader(c.data))
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			if err != nil || string(got) != c.want {
				t.Errorf("%d bytes %.20q, %v; want %d", len(got), got, err, len(c.want))
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestBroken(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("some bytes that repeat ", 100_000)
	for name, data := range map[string][]byte{"gzip": gz(t, long), "zstd": zst(t, long), "xz": xzed(t, long)} {
		for _, n := range []int{len(data) - 1, len(data) / 2} {
			r, err := NewReader(bytes.NewReader(data[:n]))
			if err == nil {
				_, err = io.Copy(io.Discard, r)
				if cerr := r.Close(); cerr != nil {
					t.Error(cerr)
				}
			}
			if !errors.Is(err, io.ErrUnexpectedEOF) && (err == nil || !strings.Contains(err.Error(), name)) {
				t.Errorf("%s cut to %d: %v", name, n, err)
			}
		}
	}
}

// TestClosedEarly leaves a stream that was not read to its end.
func TestClosedEarly(t *testing.T) {
	t.Parallel()
	r, err := NewReader(bytes.NewReader(gz(t, strings.Repeat("x", 10<<20))))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func FuzzNewReader(f *testing.F) {
	for _, seed := range [][]byte{gz(f, "seed"), zst(f, "seed"), xzed(f, "seed"), []byte("BZh9"), []byte("plain"), {0x1f, 0x8b}} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := NewReader(bytes.NewReader(data))
		if err != nil {
			return
		}
		_, _ = io.CopyN(io.Discard, r, 1<<20) // whatever it is, it must end
		if err := r.Close(); err != nil {
			t.Skip(err)
		}
	})
}
