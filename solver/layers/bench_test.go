package layers_test

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"github.com/slipwaybuild/slipway/solver/layers/layerstest"
	"golang.org/x/sys/unix"
)

func benchStore(b *testing.B, realisation string) *layers.Store {
	b.Helper()
	if os.Geteuid() != 0 {
		b.Skip("mounting needs root")
	}
	s, err := opener(realisation)(b.Context(), b.TempDir(), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	b.ReportAllocs()
	return s
}

// manyFiles is a tar of n files of 4 KiB.
func manyFiles(b *testing.B, n int) []byte {
	b.Helper()
	content := string(bytes.Repeat([]byte("0123456789abcdef"), 256))
	var entries []any
	for i := range n {
		if i%100 == 0 {
			entries = append(entries, layerstest.Dir(fmt.Sprintf("d%d", i/100), 0o755))
		}
		entries = append(entries, layerstest.Text(fmt.Sprintf("d%d/f%d", i/100, i), content))
	}
	data, _ := layerstest.Tar(b, entries...)
	return data
}

func BenchmarkImport(b *testing.B) {
	for _, n := range []int{10, 1_000, 20_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := benchStore(b, layers.Erofs)
			data := manyFiles(b, n)
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				release(b, importTar(b, s, data))
				if err := s.Prune(b.Context(), layers.PruneOptions{}, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func importTar(b *testing.B, s *layers.Store, data []byte) *layers.Ref {
	b.Helper()
	r, err := s.Import(b.Context(), bytes.NewReader(data), layers.ImportOptions{})
	if err != nil {
		b.Fatal(err)
	}
	return r
}

func release(b *testing.B, r *layers.Ref) {
	b.Helper()
	if err := r.Release(); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkPack(b *testing.B) {
	for _, n := range []int{10, 1_000, 20_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := benchStore(b, layers.Erofs)
			data := bytes.Repeat([]byte("0123456789abcdef"), 256)
			b.SetBytes(int64(n * len(data)))
			for b.Loop() {
				d := fstree.NewDelta(fstree.Empty())
				for i := range n {
					e := fstree.Entry{Path: fmt.Sprintf("f%d", i), Mode: unix.S_IFREG | 0o644, Size: int64(len(data))}
					if err := d.Put(b.Context(), e, fstree.Bytes(data)); err != nil {
						b.Fatal(err)
					}
				}
				r, err := s.Pack(b.Context(), d.Changes(), layers.ImportOptions{})
				if err != nil {
					b.Fatal(err)
				}
				release(b, r)
			}
		})
	}
}

func BenchmarkCompose(b *testing.B) {
	for _, realisation := range []string{layers.Erofs, layers.Unpacked} {
		for _, n := range []int{1, 30} {
			b.Run(fmt.Sprintf("%s/%d", realisation, n), func(b *testing.B) {
				s := benchStore(b, realisation)
				var refs []*layers.Ref
				for i := range n {
					data, _ := layerstest.Tar(b, layerstest.Text(fmt.Sprint(i), "x"))
					r := importTar(b, s, data)
					defer release(b, r)
					refs = append(refs, r)
				}
				r := s.Stack(refs...)
				defer release(b, r)
				for b.Loop() {
					m, err := s.Compose(b.Context(), r, nil)
					if err != nil {
						b.Fatal(err)
					}
					if err := m.Close(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkStep is what the store adds to a step: an upper, a mount, a layer.
func BenchmarkStep(b *testing.B) {
	s := benchStore(b, layers.Erofs)
	base := importTar(b, s, manyFiles(b, 1000))
	defer release(b, base)
	for b.Loop() {
		u, err := s.NewUpper(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		m, err := s.Compose(b.Context(), base, u)
		if err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(m.Path()+"/x", nil, 0o600); err != nil {
			b.Fatal(err)
		}
		if err := m.Close(); err != nil {
			b.Fatal(err)
		}
		r, err := s.Seal(b.Context(), u, layers.ImportOptions{})
		if err != nil {
			b.Fatal(err)
		}
		release(b, r)
	}
}

func BenchmarkPin(b *testing.B) {
	s := benchStore(b, layers.Erofs)
	var ids []layers.ID
	for i := range 30 {
		data, _ := layerstest.Tar(b, layerstest.Text(fmt.Sprint(i), "x"))
		r := importTar(b, s, data)
		ids = append(ids, r.IDs()...)
		release(b, r)
	}
	for b.Loop() {
		r, err := s.Pin(b.Context(), ids...)
		if err != nil {
			b.Fatal(err)
		}
		release(b, r)
	}
}
