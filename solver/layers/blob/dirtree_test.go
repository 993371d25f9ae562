package blob

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"golang.org/x/sys/unix"
)

// TestUnpack makes directories of layers; what DirTree reads there is the layer again.
func TestUnpack(t *testing.T) {
	t.Parallel()
	needRoot(t)
	all := odd(t)
	all["layer"] = makeTar(t, dir("./"), dir("a/"), file("a/.wh..wh..opq", ""), file("a/.wh.gone", ""), dir("b"), file("b/x", "1"),
		hardlink("a/z", "b/x"), file(".wh.w", ""))
	for name, in := range all {
		for _, user := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				_, b := index(t, in)
				root := t.TempDir()
				if err := Unpack(t.Context(), b.Tree(), root, UnpackOptions{Userxattr: user}); err != nil {
					t.Fatal(err)
				}
				unpacked := DirTree(root)
				if user {
					unpacked = DirTreeUserxattr(root)
				}
				got, want := describe(t, unpacked), describe(t, b.Tree())
				got[0], want[0] = strings.TrimSuffix(got[0], " implied"), strings.TrimSuffix(want[0], " implied")
				if b.Summary().Empty {
					got, want = got[1:], want[1:]
				}
				same(t, "unpacked", got, want)
				// Both forms of a layer are the same layer.
				if repack(t, rootless{unpacked}).Summary().DiffID != repack(t, rootless{b.Tree()}).Summary().DiffID {
					t.Error("packed: another diffID")
				}
				for _, tree := range []fstree.Tree{b.Tree(), unpacked} {
					if _, err := fstree.Digest(t.Context(), fstree.View(tree), "", fstree.DigestOptions{}); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
}

// rootless has nothing to say of its root.
type rootless struct{ fstree.Tree }

func (r rootless) Stat(ctx context.Context, p string) (fstree.Entry, error) {
	e, err := r.Tree.Stat(ctx, p)
	e.Implied = e.Implied || p == ""
	return e, err
}

// TestUnpackOverlay lets the kernel judge the marks, of both forms of a layer.
func TestUnpackOverlay(t *testing.T) {
	t.Parallel()
	needRoot(t)
	_, lower := index(t, makeTar(t, dir("a"), file("a/old", ""), dir("b"), file("b/old", ""), file("gone", "")))
	f, upper := index(t, makeTar(t, dir("a"), file("a/.wh..wh..opq", ""), file("a/new", ""), dir("b"), file("b/new", ""), file(".wh.gone", "")))
	low, up := t.TempDir(), t.TempDir()
	for d, b := range map[string]*Blob{low: lower, up: upper} {
		if err := Unpack(t.Context(), b.Tree(), d, UnpackOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	want := short(t, fstree.View(lower.Tree(), upper.Tree()))
	for form, top := range map[string]string{"directory": up, "blob": mountBlob(t, f)} {
		at := t.TempDir()
		if err := unix.Mount("overlay", at, "overlay", 0, "lowerdir="+top+":"+low); err != nil {
			t.Skipf("no overlay here: %v", err)
		}
		got := short(t, DirTree(at))
		if err := unix.Unmount(at, 0); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got[1:], want[1:]) {
			t.Errorf("%s: the kernel has %q, the view %q", form, got, want)
		}
	}
}

func TestDirTreeStaysInside(t *testing.T) {
	t.Parallel()
	root, outside := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(root, "out")); err != nil {
		t.Fatal(err)
	}
	tree := DirTree(root)
	if _, err := tree.Stat(t.Context(), "out/secret"); err == nil {
		t.Error("stat left the root")
	}
	if _, err := tree.ReadDir(t.Context(), "out"); err == nil {
		t.Error("readdir left the root")
	}
	if c, err := tree.Open(t.Context(), "out/secret"); err == nil {
		t.Error("open left the root", c.Close())
	}
}

func TestDirTreeNotSelfContained(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for _, attr := range []string{"trusted.overlay.redirect", "trusted.overlay.metacopy"} {
		root := t.TempDir()
		if err := os.Mkdir(filepath.Join(root, "d"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Setxattr(filepath.Join(root, "d"), attr, []byte("/x"), 0); err != nil {
			t.Skipf("no trusted attributes here: %v", err)
		}
		if _, err := Pack(t.Context(), fstree.NewSource(DirTree(root)), create(t)); !errors.Is(err, ErrNotSelfContained) {
			t.Errorf("%s: %v", attr, err)
		}
	}
}
