package blob

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// many is a tar of n files of up to 7.8 KB in n/12 directories.
func many(tb testing.TB, n int) []byte {
	tb.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 7800)
	for i := range data {
		data[i] = byte(rnd.Uint32())
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range n {
		if i%12 == 0 {
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprintf("d%03d/s%d/", i/1200, i/12), Mode: 0o755}); err != nil {
				tb.Fatal(err)
			}
		}
		size := rnd.IntN(len(data))
		h := &tar.Header{
			Typeflag: tar.TypeReg, Name: fmt.Sprintf("d%03d/s%d/file-%d.c", i/1200, i/12, i), Mode: 0o644, Size: int64(size),
		}
		if err := w.WriteHeader(h); err != nil {
			tb.Fatal(err)
		}
		if _, err := w.Write(data[:size]); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func create(tb testing.TB) *os.File {
	tb.Helper()
	f, err := os.Create(filepath.Join(tb.TempDir(), "blob"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = f.Close() })
	return f
}

func BenchmarkIndex(b *testing.B) {
	for _, n := range []int{100, 20_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			in := many(b, n)
			f := create(b)
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				if err := f.Truncate(0); err != nil {
					b.Fatal(err)
				}
				if _, err := Index(context.Background(), bytes.NewReader(in), f, Limits{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPack(b *testing.B) {
	for _, n := range []int{100, 20_000} {
		in := many(b, n)
		from := create(b)
		sum, err := Index(context.Background(), bytes.NewReader(in), from, Limits{})
		if err != nil {
			b.Fatal(err)
		}
		blob, err := Open(from, sum.Size)
		if err != nil {
			b.Fatal(err)
		}
		dir := b.TempDir()
		if err := Unpack(context.Background(), blob.Tree(), dir, UnpackOptions{}); err != nil {
			b.Skipf("cannot unpack: %v", err)
		}
		for name, t := range map[string]fstree.Tree{"blob": blob.Tree(), "dir": DirTree(dir)} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				f := create(b)
				b.SetBytes(int64(len(in)))
				b.ReportAllocs()
				for b.Loop() {
					if err := f.Truncate(0); err != nil {
						b.Fatal(err)
					}
					if _, err := Pack(context.Background(), fstree.NewSource(t), f); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkWalk(b *testing.B) {
	in := many(b, 20_000)
	f := create(b)
	sum, err := Index(context.Background(), bytes.NewReader(in), f, Limits{})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		blob, err := Open(f, sum.Size)
		if err != nil {
			b.Fatal(err)
		}
		if err := fstree.Walk(context.Background(), blob.Tree(), "", func(fstree.Entry) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDigest(b *testing.B) {
	in := many(b, 20_000)
	f := create(b)
	sum, err := Index(context.Background(), bytes.NewReader(in), f, Limits{})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		blob, err := Open(f, sum.Size)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := fstree.Digest(context.Background(), blob.Tree(), "", fstree.DigestOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUnpack(b *testing.B) {
	in := many(b, 20_000)
	f := create(b)
	sum, err := Index(context.Background(), bytes.NewReader(in), f, Limits{})
	if err != nil {
		b.Fatal(err)
	}
	blob, err := Open(f, sum.Size)
	if err != nil {
		b.Fatal(err)
	}
	i := 0
	top := b.TempDir()
	for b.Loop() {
		dir := filepath.Join(top, fmt.Sprint(i))
		i++
		if err := os.Mkdir(dir, 0o755); err != nil {
			b.Fatal(err)
		}
		if err := Unpack(context.Background(), blob.Tree(), dir, UnpackOptions{}); err != nil {
			b.Skipf("cannot unpack: %v", err)
		}
	}
}
