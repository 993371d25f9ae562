package layerstest

import (
	"errors"
	"io"

	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"golang.org/x/sys/unix"
)

var lentCases = map[string]func(*Bench){
	"lent until released":  lentUntilReleased,
	"lent and packed":      lentAndPacked,
	"lent and held":        lentAndHeld,
	"lent and unavailable": lentAndUnavailable,
}

// lend lends a tree with one file. ended counts the calls of end.
func (b *Bench) lend(content string) (r *layers.Ref, ended *int) {
	b.Helper()
	d := fstree.NewDelta(fstree.Empty())
	e := fstree.Entry{Path: "f", Mode: unix.S_IFREG | 0o644, Size: int64(len(content))}
	b.OK(d.Put(b.Context(), e, fstree.Bytes([]byte(content))))
	ended = new(int)
	r, err := b.S.Lend(d, layers.ImportOptions{}, func() error { *ended++; return nil })
	b.OK(err)
	return r, ended
}

func (b *Bench) readFile(r *layers.Ref, path string) string {
	b.Helper()
	t, err := b.S.Tree(b.Context(), r)
	b.OK(err)
	data, err := fstree.ReadFile(b.Context(), t, path, 1<<20)
	b.OK(err)
	return string(data)
}

func lentUntilReleased(b *Bench) {
	r, ended := b.lend("lent")
	if got := b.readFile(r, "f"); got != "lent" {
		b.Errorf("read %q", got)
	}
	if info := r.Layers()[0]; info.Kind != layers.Lent || info.DiffID != "" {
		b.Errorf("%+v", info)
	}
	second, err := b.S.Pin(b.Context(), r.IDs()...)
	b.OK(err)
	id := r.IDs()[0]
	b.OK(r.Release())
	b.OK(b.S.Prune(b.Context(), layers.PruneOptions{All: true}, nil))
	if *ended != 0 {
		b.Error("ended while it is held")
	}
	b.OK(second.Release())
	if *ended != 1 {
		b.Errorf("ended %d times", *ended)
	}
	if _, err := b.S.Pin(b.Context(), id); !errors.Is(err, layers.ErrNotFound) {
		b.Errorf("still there: %v", err)
	}
}

func lentAndPacked(b *Bench) {
	r, ended := b.lend("packed")
	ids, err := b.S.Solidify(b.Context(), r)
	b.OK(err)
	tar, _, err := b.S.Tar(b.Context(), r, 0)
	b.OK(err)
	_, err = io.Copy(io.Discard, tar)
	b.OK(errors.Join(err, tar.Close()))
	b.OK(b.S.Fetch(b.Context(), r, nil, nil))
	b.View(r, func(root string) {
		if got := Snapshot(b, root); got["f"] == "" {
			b.Errorf("mounted: %v", got)
		}
	})
	over := b.Stack(b.Import(Dir("g", 0o755)), r)
	if got := b.readFile(over, "f"); got != "packed" {
		b.Errorf("in a stack: %q", got)
	}
	b.OK(over.Release())
	b.OK(r.Release())
	if *ended != 1 {
		b.Errorf("ended %d times", *ended)
	}
	// The blob is there for itself, for results that it is part of.
	blob, err := b.S.Pin(b.Context(), layers.ID(ids[0]))
	b.OK(err)
	b.compareDU()
	b.OK(blob.Release())
	b.OK(b.S.Prune(b.Context(), layers.PruneOptions{All: true}, nil))
	if _, err := b.S.Pin(b.Context(), layers.ID(ids[0])); !errors.Is(err, layers.ErrNotFound) {
		b.Errorf("the blob is left: %v", err)
	}
}

func lentAndHeld(b *Bench) {
	r, _ := b.lend("held")
	b.OK(b.S.Hold(b.Context(), "image", r))
	b.OK(r.Release())
	b.Reopen(nil)
	again, err := b.S.Held(b.Context(), "image")
	b.OK(err)
	b.Owned(again)
	if got := b.readFile(again, "f"); got != "held" {
		b.Errorf("after a restart: %q", got)
	}
	b.OK(b.S.Drop(b.Context(), "image"))
}

func lentAndUnavailable(b *Bench) {
	r, _ := b.lend("x")
	b.Owned(r)
	if m, err := b.S.Compose(b.Context(), r, nil); !errors.Is(err, layers.ErrNotLocal) {
		b.Errorf("mounted what is not here: %v, %v", m, err)
	}
	if _, _, err := b.S.Tar(b.Context(), r, 0); !errors.Is(err, layers.ErrNotPacked) {
		b.Errorf("tar of what was not packed: %v", err)
	}
}
