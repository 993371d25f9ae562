package layerstest

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/slipwaybuild/slipway/solver/layers"
	"golang.org/x/sys/unix"
)

var upperCases = map[string]func(*Bench){
	"a step and its packing":  stepAndPacking,
	"root directory":          rootDirectory,
	"ends once":               upperEndsOnce,
	"mounted one is refused":  mountedUpper,
	"packed once":             packedOnce,
	"equal content, one blob": equalContent,
	"empty packs":             emptyPacks,
	"hard links stay one":     hardLinksStay,
	"mounted again":           mountedAgain,
}

func countFiles(b *Bench, dir string) (n int) {
	b.Helper()
	b.OK(filepath.WalkDir(filepath.Join(b.Root, dir), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return err
	}))
	return n
}

func baseLayer(b *Bench) *layers.Ref {
	return b.Import(Dir("etc", 0o755), Text("etc/passwd", "root"), Text("etc/old", "old"), Dir("usr", 0o755),
		Dir("usr/share", 0o755), Text("usr/share/a", "a"), Text("usr/share/b", "b"), Link("usr/link", "share/a"),
		Text("untouched", "u"), Dir("var", 0o755), Text("var/log", "l"))
}

// change does what a RUN may do.
func change(b *Bench, root string) {
	at := func(p string) string { return filepath.Join(root, p) }
	b.Write(at("etc/new"), "new")
	b.Write(at("etc/passwd"), "root\nuser")
	b.OK(os.Remove(at("etc/old")))
	b.OK(os.RemoveAll(at("usr/share")))
	b.OK(os.Mkdir(at("usr/share"), 0o750))
	b.Write(at("usr/share/c"), "c")
	b.OK(os.RemoveAll(at("var")))
	b.OK(os.Symlink("etc", at("var")))
	b.OK(os.Mkdir(at("sticky"), 0o755))
	b.OK(os.Chmod(at("sticky"), 0o755|os.ModeSticky))
	b.OK(os.Link(at("etc/new"), at("sticky/linked")))
	b.OK(os.Lchown(at("usr/share/c"), 1234, 5678))
	b.OK(unix.Mknod(at("zero"), syscall.S_IFCHR|0o666, int(unix.Mkdev(1, 5)))) //nolint:gosec // a small number
	b.OK(unix.Setxattr(at("sticky"), "user.mood", []byte("good"), 0))
	b.OK(unix.Setxattr(at("usr/share/c"), "trusted.secret", []byte("t"), 0))
	b.OK(os.Chmod(at("untouched"), 0o600))
	b.OK(os.Chtimes(at("usr"), time.Time{}, time.Unix(1, 2)))
}

// stepAndPacking sees that what a step left behind looks the same sealed, packed, and imported elsewhere from its tar. The root
// keeps its time, which a step changes by doing anything there.
func stepAndPacking(b *Bench) {
	base := baseLayer(b)
	var want map[string]string
	step := b.Step(base, func(root string) {
		change(b, root)
		want = Snapshot(b, root)
	})
	stack := b.Stack(base, step)
	Same(b, b.Snapshot(stack), want, ".")

	ids, err := b.S.Solidify(b.Context(), stack)
	b.OK(err)
	Same(b, b.Snapshot(stack), want, ".")
	info := stack.Layers()[1]
	if info.DiffID != ids[1] || !strings.HasPrefix(string(info.ID), "dir:") || ids[0] != stack.Layers()[0].DiffID {
		b.Errorf("diffIDs %v, info %+v", ids, info)
	}
	t, _, err := b.S.Tar(b.Context(), stack, 1)
	b.OK(err)
	data, err := io.ReadAll(t)
	b.OK(errors.Join(err, t.Close()))

	// The directory may go as soon as nobody holds it.
	id := step.IDs()[0]
	b.OK(stack.Release())
	b.OK(step.Release())
	again, err := b.S.Pin(b.Context(), base.IDs()[0], id)
	b.OK(err)
	Same(b, b.Snapshot(b.Owned(again)), want, ".")

	imported, err := b.S.Import(b.Context(), bytes.NewReader(data), layers.ImportOptions{Want: ids[1]})
	b.OK(err)
	Same(b, b.Snapshot(b.Stack(base, b.Owned(imported))), want, ".")
	got := b.Snapshot(b.Stack(base, imported))
	if !strings.HasPrefix(got["untouched"], "100600 0:0 981173106.0") {
		b.Errorf("time of what was not written to: %s", got["untouched"])
	}
}

func rootDirectory(b *Bench) {
	base := b.Import(Dir(".", 0o711), Text("x", "1"))
	unchanged := b.Step(base, func(root string) { b.Write(filepath.Join(root, "y"), "y") })
	high := b.Import(Dir(".", 0o700))
	if got := b.Snapshot(b.Stack(base, high, unchanged))["."]; !strings.HasPrefix(got, "40700 ") {
		b.Errorf("a step that left the root alone changes it: %s", got)
	}
	changed := b.Step(base, func(root string) { b.OK(os.Chmod(root, 0o555)) })
	for _, r := range []*layers.Ref{b.Stack(base, changed), b.Stack(changed, unchanged)} {
		if got := b.Snapshot(r)["."]; !strings.HasPrefix(got, "40555 ") {
			b.Errorf("root: %s", got)
		}
	}
	if _, err := b.S.Solidify(b.Context(), changed); err != nil {
		b.Error(err)
	}
	if got := b.Snapshot(b.Stack(base, changed))["."]; !strings.HasPrefix(got, "40555 ") {
		b.Errorf("packed root: %s", got)
	}
	b.Step(b.Stack(base, changed), func(root string) {
		if info, err := os.Stat(root); err != nil || info.Mode().Perm() != 0o555 {
			b.Errorf("root of a step: %v %v", info, err)
		}
	})
}

func upperEndsOnce(b *Bench) {
	u, err := b.S.NewUpper(b.Context())
	b.OK(err)
	b.OK(u.Discard())
	if err := u.Discard(); !errors.Is(err, layers.ErrReleased) {
		b.Errorf("second discard: %v", err)
	}
	if _, err := b.S.Seal(b.Context(), u, layers.ImportOptions{}); !errors.Is(err, layers.ErrReleased) {
		b.Errorf("seal: %v", err)
	}
	if _, err := b.S.Compose(b.Context(), b.Import(Text("x", "1")), u); !errors.Is(err, layers.ErrReleased) {
		b.Errorf("compose: %v", err)
	}
}

func mountedUpper(b *Bench) {
	u, err := b.S.NewUpper(b.Context())
	b.OK(err)
	base := b.Import(Text("x", "1"))
	m, err := b.S.Compose(b.Context(), base, u)
	b.OK(err)
	if _, err := b.S.Seal(b.Context(), u, layers.ImportOptions{}); !errors.Is(err, layers.ErrInUse) {
		b.Errorf("seal: %v", err)
	}
	if err := u.Discard(); !errors.Is(err, layers.ErrInUse) {
		b.Errorf("discard: %v", err)
	}
	if _, err := b.S.Compose(b.Context(), base, u); !errors.Is(err, layers.ErrInUse) {
		b.Errorf("compose: %v", err)
	}
	b.OK(m.Close())
	if err := m.Close(); !errors.Is(err, layers.ErrReleased) {
		b.Errorf("second close: %v", err)
	}
	b.OK(u.Discard())
}

func packedOnce(b *Bench) {
	step := b.Step(b.Import(Text("x", "1")), func(root string) { b.Write(filepath.Join(root, "y"), strings.Repeat("y", 1<<20)) })
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			ids, err := b.S.Solidify(b.Context(), step)
			if err != nil || ids[0] == "" {
				b.Errorf("%v %v", ids, err)
			}
		})
	}
	wg.Wait()
	if n := countFiles(b, "blobs"); n != 2 {
		b.Errorf("%d blobs", n)
	}
}

func equalContent(b *Bench) {
	base := b.Import(Text("x", "1"))
	write := func(root string) {
		path := filepath.Join(root, "y")
		b.Write(path, "y")
		b.OK(os.Chtimes(path, Epoch, Epoch))
	}
	one, two := b.Step(base, write), b.Step(base, write)
	first, err := b.S.Solidify(b.Context(), one)
	b.OK(err)
	second, err := b.S.Solidify(b.Context(), two)
	b.OK(err)
	if first[0] != second[0] || countFiles(b, "blobs") != 2 {
		b.Errorf("%v and %v in %d blobs", first, second, countFiles(b, "blobs"))
	}
	// Losing one does not take the blob from the other.
	id := two.IDs()[0]
	b.OK(one.Release())
	b.OK(b.S.Prune(b.Context(), layers.PruneOptions{}, nil))
	b.OK(two.Clone().Release())
	names(b, b.Snapshot(two), ".", "y")
	b.OK(two.Release())
	again, err := b.S.Pin(b.Context(), id)
	b.OK(err)
	names(b, b.Snapshot(again), ".", "y")
	b.OK(again.Release())
	b.OK(base.Release())
	b.OK(b.S.Prune(b.Context(), layers.PruneOptions{}, nil))
	if n := countFiles(b, "blobs"); n != 0 {
		b.Errorf("%d blobs are left", n)
	}
}

func emptyPacks(b *Bench) {
	empty := b.Step(b.Import(Text("x", "1")), func(string) {})
	ids, err := b.S.Solidify(b.Context(), empty)
	b.OK(err)
	_, size, err := b.S.Tar(b.Context(), empty, 0)
	b.OK(err)
	if ids[0] == "" || size == 0 {
		b.Errorf("%v, %d bytes", ids, size)
	}
}

func hardLinksStay(b *Bench) {
	base := b.Import(Text("a", "one"), HardLink("b", "a"))
	step := b.Step(base, func(root string) {
		f, err := os.OpenFile(filepath.Join(root, "a"), os.O_APPEND|os.O_WRONLY, 0)
		b.OK(err)
		_, err = f.WriteString(" two")
		b.OK(errors.Join(err, f.Close()))
	})
	b.View(b.Stack(base, step), func(root string) {
		got, err := os.ReadFile(filepath.Join(root, "a"))
		b.OK(err)
		if string(got) != "one two" {
			b.Errorf("a holds %q", got)
		}
		other, err := os.ReadFile(filepath.Join(root, "b"))
		b.OK(err)
		b.Logf("the other name holds %q", other)
	})
}

func mountedAgain(b *Bench) {
	base := b.Import(Dir("d", 0o755), Text("d/x", "1"), HardLink("d/y", "d/x"))
	u, err := b.S.NewUpper(b.Context())
	b.OK(err)
	for _, name := range []string{"d/one", "two", "d/y"} {
		m, err := b.S.Compose(b.Context(), base, u)
		b.OK(err)
		b.Write(filepath.Join(m.Path(), name), "x")
		b.OK(m.Close())
	}
	r, err := b.S.Seal(b.Context(), u, layers.ImportOptions{})
	b.OK(err)
	names(b, b.Snapshot(b.Stack(base, b.Owned(r))), ".", "d", "d/x", "d/y", "d/one", "two")
}
