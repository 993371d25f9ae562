package blob

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// sample is a small blob with something of everything, in memory.
func sample(tb testing.TB) []byte {
	tb.Helper()
	in := makeTar(tb, dir("./"), dir("a/"), file("a/x", "hello").pax("SCHILY.xattr.user.k", "v"), hardlink("a/y", "a/x"),
		symlink("s", "a"), symlink("l", strings.Repeat("l", 600)), file("b/c", "x"), file(".wh.w", ""), file("a/.wh..wh..opq", ""))
	in = append(in, makeTar(tb, numbered(60)...)...)
	f, _ := index(tb, in)
	all, err := os.ReadFile(f.Name())
	if err != nil {
		tb.Fatal(err)
	}
	return all
}

// lookAround reads all there is to be read. It must end.
func lookAround(ctx context.Context, all []byte) error {
	b, err := Open(bytes.NewReader(all), int64(len(all)))
	if err != nil {
		return err
	}
	t := b.Tree()
	return errors.Join(b.Verify(ctx), fstree.Walk(ctx, t, "", func(e fstree.Entry) error {
		if _, err := t.Stat(ctx, e.Path); err != nil {
			return err
		}
		if !e.IsRegular() {
			return nil
		}
		c, err := t.Open(ctx, e.Path)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, io.NewSectionReader(c, 0, c.Size()))
		return errors.Join(err, c.Close())
	}))
}

func TestOpenDamaged(t *testing.T) {
	t.Parallel()
	good := sample(t)
	if err := lookAround(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	h, err := readHeader(bytes.NewReader(good), int64(len(good)))
	if err != nil {
		t.Fatal(err)
	}
	// Every byte that is ours.
	for at := range int64(len(good)) {
		own := at >= ownAt && at < ownAt+ownSize || at >= headerSize && at < headerSize+h.tarSize || at >= h.meta && at < h.meta+h.metaLen
		if !own || at > headerSize+2048 && at < h.meta {
			continue
		}
		bad := bytes.Clone(good)
		bad[at] ^= 0x10
		if err := lookAround(t.Context(), bad); !errors.Is(err, ErrDamaged) {
			t.Fatalf("byte %d changed: %v", at, err)
		}
	}
	for _, n := range []int{0, 1, 2047, 2100, 4096, len(good) / 2, len(good) - 1} {
		if err := lookAround(t.Context(), good[:n]); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	if err := lookAround(t.Context(), append(bytes.Clone(good), 0)); !errors.Is(err, ErrDamaged) {
		t.Errorf("a byte too many: %v", err)
	}
	if err := lookAround(t.Context(), make([]byte, 10_000)); !errors.Is(err, ErrDamaged) {
		t.Errorf("zeros: %v", err)
	}
}

// resum makes the checksums right again, so that what they guard has to defend itself.
func resum(all []byte) {
	if len(all) < headerSize {
		return
	}
	var h header
	own := all[ownAt : ownAt+ownSize]
	putSum := func() {
		c := crc32.Checksum(own[:ownSize-4], castagnoli)
		own[ownSize-4], own[ownSize-3], own[ownSize-2], own[ownSize-1] = byte(c), byte(c>>8), byte(c>>16), byte(c>>24)
	}
	putSum()
	if h.decode(own) != nil || h.meta+h.metaLen > int64(len(all)) {
		return
	}
	h.metaSum = crc32.Checksum(all[h.meta:h.meta+h.metaLen], castagnoli)
	h.encode(own)
}

// TestOpenHostile changes the metadata together with its checksum: anything may come of it but a panic or no end.
func TestOpenHostile(t *testing.T) {
	t.Parallel()
	good := sample(t)
	h, err := readHeader(bytes.NewReader(good), int64(len(good)))
	if err != nil {
		t.Fatal(err)
	}
	for at := h.meta; at < h.meta+h.metaLen; at++ {
		for _, v := range []byte{0, 1, 0x7f, 0xff} {
			if v != 0 && at%3 != 0 {
				continue
			}
			bad := bytes.Clone(good)
			bad[at] = v
			resum(bad)
			_ = lookAround(t.Context(), bad)
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(sample(f), 0, []byte{0})
	f.Add(sample(f), 4700, []byte{1, 2, 3})
	f.Add([]byte("short"), 1, []byte(nil))
	f.Fuzz(func(t *testing.T, all []byte, at int, patch []byte) {
		if len(all) > 0 && at >= 0 {
			copy(all[at%len(all):], patch)
		}
		resum(all)
		_ = lookAround(t.Context(), all)
	})
}

func FuzzIndex(f *testing.F) {
	for _, in := range odd(f) {
		if len(in) < 100_000 {
			f.Add(in)
		}
	}
	for _, in := range sparseTars(f) {
		f.Add(in)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := os.CreateTemp(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			_ = out.Close()
			_ = os.Remove(out.Name())
		}()
		sum, err := Index(t.Context(), bytes.NewReader(in), out, Limits{Expanded: 64 << 20, Entries: 10_000})
		if err != nil {
			return
		}
		b, err := Open(out, sum.Size)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Verify(t.Context()); err != nil {
			t.Fatal(err)
		}
		packed, err := os.CreateTemp(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			_ = packed.Close()
			_ = os.Remove(packed.Name())
		}()
		again, err := Pack(t.Context(), fstree.NewSource(b.Tree()), packed)
		if err != nil {
			t.Fatalf("what was indexed cannot be packed: %v", err)
		}
		if again.Entries != sum.Entries || again.HasWhiteouts != sum.HasWhiteouts || again.HasImplied != sum.HasImplied {
			t.Fatalf("indexed %+v, packed %+v", sum, again)
		}
	})
}

func TestTreeErrors(t *testing.T) {
	t.Parallel()
	_, b := index(t, makeTar(t, dir("d"), file("f", "x"), symlink("s", "d"), file(".wh.w", "")))
	unpacked := t.TempDir()
	trees := map[string]fstree.Tree{"blob": b.Tree()}
	if err := Unpack(t.Context(), b.Tree(), unpacked, UnpackOptions{}); err == nil {
		trees["dir"] = DirTree(unpacked)
	}
	for name, tree := range trees {
		for _, tt := range []struct {
			op, path string
			err      error
		}{
			{"stat", "x", fs.ErrNotExist}, {"stat", "f/x", fs.ErrNotExist}, {"stat", "s/x", fs.ErrNotExist}, {"stat", "d/x/y", fs.ErrNotExist},
			{"readdir", "x", fs.ErrNotExist}, {"readdir", "f", fstree.ErrNotDir}, {"readdir", "s", fstree.ErrNotDir},
			{"readdir", "w", fstree.ErrNotDir}, {"readdir", "f/x", fs.ErrNotExist},
			{"open", "x", fs.ErrNotExist}, {"open", "d", fstree.ErrNotRegular}, {"open", "s", fstree.ErrNotRegular},
			{"open", "", fstree.ErrNotRegular}, {"open", "w", fstree.ErrNotRegular}, {"open", "f/x", fs.ErrNotExist},
		} {
			var err error
			switch tt.op {
			case "stat":
				_, err = tree.Stat(t.Context(), tt.path)
			case "readdir":
				_, err = tree.ReadDir(t.Context(), tt.path)
			case "open":
				_, err = tree.Open(t.Context(), tt.path)
			}
			if !errors.Is(err, tt.err) {
				t.Errorf("%s: %s %q: %v, want %v", name, tt.op, tt.path, err, tt.err)
			}
			var pe *fs.PathError
			if !errors.As(err, &pe) {
				t.Errorf("%s: %s %q: no path in %v", name, tt.op, tt.path, err)
			}
		}
	}
}
