package local

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipwaybuild/slipway/session/samehost"
	"github.com/slipwaybuild/slipway/session/samehost/samehosttest"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"github.com/slipwaybuild/slipway/solver/source"
	"golang.org/x/sys/unix"
)

// here is a fixture whose clients let the source look itself.
type here struct {
	*fixture
	d *samehosttest.Daemon
}

func newHere(t *testing.T, change func(*Options)) *here {
	h := &here{}
	h.fixture = newFixture(t, func(o *Options) {
		h.d = samehosttest.Serve(t, o.Sessions)
		o.Host = h.d.Host
		if change != nil {
			change(o)
		}
	})
	return h
}

// clientOf runs a session that offers a directory in both ways.
func (h *here) clientOf(dir string) string {
	o := samehost.Offer{Sources: map[string]samehost.Source{"context": {Path: dir, ResetOwner: true}}}
	return h.d.Client(h.t, o, ours(dir)).ID()
}

// lend pins and returns what was lent; it must have been.
func (h *here) lend(id string, attrs map[string]string) (source.Pinned, *layers.Ref, fstree.Tree) {
	h.t.Helper()
	env := h.env(id)
	p, err := h.source.Pin(h.t.Context(), env, source.Request{Identifier: "local://context", Attrs: attrs})
	if err != nil {
		h.t.Fatal(err)
	}
	ref, err := p.Fetch(h.t.Context(), env)
	if err != nil {
		h.t.Fatal(err)
	}
	if k := ref.Layers()[0].Kind; k != layers.Lent {
		h.t.Fatalf("the layer is %s", k)
	}
	t, err := h.store.Tree(h.t.Context(), ref)
	if err != nil {
		h.t.Fatal(err)
	}
	return p, ref, t
}

func (h *here) giveBack(p source.Pinned, ref *layers.Ref) {
	h.t.Helper()
	if err := errors.Join(ref.Release(), p.Close()); err != nil {
		h.t.Error(err)
	}
}

func content(p source.Pinned) string { return p.Key()[1].Value }

func TestTheKeyIsTheSameEitherWay(t *testing.T) {
	dir := t.TempDir()
	big := make([]byte, 3<<20)
	rand.NewChaCha8([32]byte{}).Read(big)
	write(t, dir, map[string]string{
		"a": "1", "b/c": "2", "b/link": "-> c", "empty": "", ".dockerignore": "skip", "skip/x": "3", "big": string(big), "z": strings.Repeat("z", 300<<10),
	})
	if err := errors.Join(os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "b/a")), os.Chmod(filepath.Join(dir, "b/c"), 0o4755), os.Chown(filepath.Join(dir, "a"), os.Getuid(), os.Getgid())); err != nil {
		t.Fatal(err)
	}
	h := newHere(t, nil)
	for _, attrs := range []map[string]string{nil, {"local.excludepatterns": `["skip"]`}, {"local.includepattern": `["b"]`}, {"local.followpaths": `["b/link"]`}} {
		want, files, id := h.pin(h.env(h.client("", ours(dir))), attrs)
		wire, err := h.store.Pin(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // digested, and known
			p, ref, tree := h.lend(h.clientOf(dir), attrs)
			if got := content(p); got != want {
				t.Errorf("%v: key %s, through the session %s", attrs, got, want)
			}
			if got := h.files(ref); len(got) != len(files) {
				t.Errorf("%v: %d files, through the session %d", attrs, len(got), len(files))
			}
			through, err := h.store.Tree(t.Context(), wire)
			if err != nil {
				t.Fatal(err)
			}
			a, err := fstree.Digest(t.Context(), tree, "", fstree.DigestOptions{})
			b, berr := fstree.Digest(t.Context(), through, "", fstree.DigestOptions{})
			if err != nil || berr != nil || a != b {
				t.Errorf("%v: what ops read of it has digest %s (%v), through the session %s (%v)", attrs, a, err, b, berr)
			}
			ids, err := h.store.Solidify(t.Context(), ref)
			if err != nil {
				t.Fatal(err)
			}
			if layers.ID(ids[0]) != id {
				t.Errorf("%v: packed into %s, through the session %s", attrs, ids[0], id)
			}
			h.giveBack(p, ref)
		}
		if err := wire.Release(); err != nil {
			t.Error(err)
		}
	}
}

// readAll reads a file in pieces, in order.
func readAll(t testing.TB, tree fstree.Tree, path string) ([]byte, error) {
	t.Helper()
	c, err := tree.Open(t.Context(), path)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return io.ReadAll(io.NewSectionReader(c, 0, c.Size()))
}

// digested counts the bytes that a pin had to read.
func (h *here) digested(id string, attrs map[string]string) (key string, n int64) {
	h.t.Helper()
	var seen statuses
	env := h.env(id)
	env.Progress = &seen
	p, err := h.source.Pin(h.t.Context(), env, source.Request{Identifier: "local://context", Attrs: attrs})
	if err != nil {
		h.t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		h.t.Error(err)
	}
	return content(p), seen.transferred(h.t)
}

func TestOnlyWhatChangedIsRead(t *testing.T) {
	dir, root := t.TempDir(), t.TempDir()
	write(t, dir, map[string]string{"a": "1234", "b": "56", "c/d": "789"})
	calm()
	h := newHere(t, func(o *Options) { o.Root = root })
	id := h.clientOf(dir)
	first, n := h.digested(id, nil)
	if n != 9 {
		t.Errorf("first: %d bytes", n)
	}
	if again, n := h.digested(id, nil); again != first || n != 0 {
		t.Errorf("unchanged: %d bytes, key changed: %t", n, again != first)
	}
	// The same size and time, other bytes: the change time tells.
	p := filepath.Join(dir, "a")
	fi, err := os.Stat(p)
	if err == nil {
		err = errors.Join(os.WriteFile(p, []byte("4321"), 0o644), os.Chtimes(p, fi.ModTime(), fi.ModTime()))
	}
	if err != nil {
		t.Fatal(err)
	}
	second, n := h.digested(id, nil)
	if second == first || n != 4 {
		t.Errorf("other bytes: %d read, key changed: %t", n, second != first)
	}
	// Another file in its place, with everything the same but what it is.
	if err := errors.Join(os.WriteFile(p+".new", []byte("4444"), 0o644), os.Chtimes(p+".new", fi.ModTime(), fi.ModTime()), os.Rename(p+".new", p)); err != nil {
		t.Fatal(err)
	}
	if third, n := h.digested(id, nil); third == second || n != 4 {
		t.Errorf("another file: %d read, key changed: %t", n, third != second)
	}
	// Touching changes no key, a mode does.
	calm()
	third, _ := h.digested(id, nil)
	if err := os.Chtimes(p, time.Now(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if now, _ := h.digested(id, nil); now != third {
		t.Error("touched: the key changed")
	}
	if err := os.Chmod(p, 0o600); err != nil {
		t.Fatal(err)
	}
	if now, _ := h.digested(id, nil); now == third {
		t.Error("chmod: the key is the same")
	}
	if _, n := h.digested(id, map[string]string{"local.differ": "none"}); n != 9 {
		t.Errorf("a client that trusts nothing: %d bytes read", n)
	}
	// A daemon that begins anew remembers.
	calm()
	h.digested(id, nil)
	h.source.saving.Wait()
	after := newHere(t, func(o *Options) { o.Root = root })
	if _, n := after.digested(after.clientOf(dir), nil); n != 0 {
		t.Errorf("after a restart: %d bytes read", n)
	}
}

// A file that was changed so lately that it may change again without a trace is digested every time.
func TestYoungFilesAreNotTrusted(t *testing.T) {
	dir := t.TempDir()
	h := newHere(t, nil)
	id := h.clientOf(dir)
	seen := map[string]string{}
	for i := range 200 {
		content := string([]byte{byte(i), byte(i >> 8)})
		if err := os.WriteFile(filepath.Join(dir, "f"), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		key, _ := h.digested(id, nil)
		if other, ok := seen[key]; ok {
			t.Fatalf("write %d: %q and %q have one key", i, content, other)
		}
		seen[key] = content
	}
}

func TestWhatChangesAfterwardsIsNeverMixed(t *testing.T) {
	const size = 3 << 20
	for name, change := range map[string]func(path string) error{
		"written to": func(p string) error {
			f, err := os.OpenFile(p, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("other"), 100)
			return errors.Join(err, f.Close())
		},
		"longer":  func(p string) error { return os.Truncate(p, size+1) },
		"shorter": func(p string) error { return os.Truncate(p, 10) },
		"gone":    os.Remove,
		"a link":  func(p string) error { return errors.Join(os.Remove(p), os.Symlink("/etc/passwd", p)) },
		"a fifo":  func(p string) error { return errors.Join(os.Remove(p), mkfifo(p)) },
		"replaced": func(p string) error {
			return errors.Join(os.WriteFile(p+"2", make([]byte, size), 0o644), os.Rename(p+"2", p))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			big := make([]byte, size)
			rand.NewChaCha8([32]byte{1}).Read(big)
			write(t, dir, map[string]string{"big": string(big), "small": "small", "untouched": "u"})
			calm()
			h := newHere(t, nil)
			id := h.clientOf(dir)
			h.digested(id, nil) // so that nothing is kept
			p, ref, tree := h.lend(id, nil)
			defer h.giveBack(p, ref)
			for _, f := range []string{"big", "small"} {
				if err := change(filepath.Join(dir, f)); err != nil {
					t.Fatal(err)
				}
				if got, err := readAll(t, tree, f); !errors.Is(err, fstree.ErrChanged) || !strings.Contains(err.Error(), f) {
					t.Errorf("%s: %d bytes, %v", f, len(got), err)
				}
			}
			if _, err := h.store.Solidify(t.Context(), ref); !errors.Is(err, fstree.ErrChanged) {
				t.Errorf("packed: %v", err)
			}
			if got, err := readAll(t, tree, "untouched"); string(got) != "u" || err != nil {
				t.Errorf("untouched: %q, %v", got, err)
			}
			if _, err := p.Fetch(t.Context(), h.env(id)); !errors.Is(err, fstree.ErrChanged) {
				t.Errorf("lent again: %v", err)
			}
		})
	}
}

// In the middle of being read, a file is written to: what was read before must not be taken for a file.
func TestChangeInMidCopy(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"big": strings.Repeat("x", 4<<20)})
	calm()
	h := newHere(t, nil)
	p, ref, tree := h.lend(h.clientOf(dir), nil)
	defer h.giveBack(p, ref)
	c, err := tree.Open(t.Context(), "big")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 1<<20)
	if _, err := c.ReadAt(buf, 0); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "big"), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt([]byte("y"), 2<<20)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	for off := int64(1 << 20); err == nil && off < 4<<20; off += 1 << 20 {
		_, err = c.ReadAt(buf, off)
	}
	if !errors.Is(err, fstree.ErrChanged) {
		t.Errorf("in order: %v", err)
	}
	if _, err := c.ReadAt(buf, 100); !errors.Is(err, fstree.ErrChanged) {
		t.Errorf("out of order: %v", err)
	}
}

// What had to be read for its digest is not opened again, so nobody minds if it changes.
func TestSmallFilesAreKept(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "old", "b": strings.Repeat("b", 200<<10)})
	h := newHere(t, nil)
	p, ref, tree := h.lend(h.clientOf(dir), nil)
	defer h.giveBack(p, ref)
	write(t, dir, map[string]string{"a": "new"})
	if err := os.Remove(filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(t, tree, "a"); string(got) != "old" || err != nil {
		t.Errorf("a: %q, %v", got, err)
	}
	if got, err := readAll(t, tree, "b"); !bytes.Equal(got, bytes.Repeat([]byte("b"), 200<<10)) || err != nil {
		t.Errorf("b: %d bytes, %v", len(got), err)
	}
}

// A build that goes on for long has a copy, whatever its client does to the files.
func TestACopyIsMadeAfterAWhile(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "old", "big": strings.Repeat("x", 2<<20)})
	calm()
	h := newHere(t, nil)
	h.source.keepers.after = 20 * time.Millisecond
	id := h.clientOf(dir)
	h.digested(id, nil)
	p, ref, tree := h.lend(id, nil)
	for start := time.Now(); p.(*pinned).v.view.copied.Load() == nil; time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > 10*time.Second {
			t.Fatal("no copy was made")
		}
	}
	write(t, dir, map[string]string{"a": "new", "big": "gone"})
	if got, err := readAll(t, tree, "a"); string(got) != "old" || err != nil {
		t.Errorf("a: %q, %v", got, err)
	}
	if got, err := readAll(t, tree, "big"); len(got) != 2<<20 || err != nil {
		t.Errorf("big: %d bytes, %v", len(got), err)
	}
	h.giveBack(p, ref)
	// What has been read to the end needs none.
	p, ref, tree = h.lend(id, nil)
	defer h.giveBack(p, ref)
	for _, f := range []string{"a", "big"} {
		if _, err := readAll(t, tree, f); err != nil {
			t.Fatal(err)
		}
	}
	if n := p.(*pinned).v.view.left.Load(); n != 0 {
		t.Errorf("%d files left", n)
	}
}

func TestWithoutPassingTheSessionServes(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "1"})
	h := newHere(t, nil)
	o := samehost.Offer{Sources: map[string]samehost.Source{"context": {Path: filepath.Join(dir, "no")}}}
	for name, id := range map[string]string{
		"not offered":    h.client("", ours(dir)),
		"cannot be read": h.d.Client(t, o, ours(dir)).ID(),
	} {
		if _, files, _ := h.pin(h.env(id), nil); files["a"] != "1" {
			t.Errorf("%s: %v", name, files)
		}
	}
}

func mkfifo(path string) error { return unix.Mkfifo(path, 0o644) }

// calm waits until what was changed before counts as settled.
func calm() { time.Sleep(60 * time.Millisecond) }
