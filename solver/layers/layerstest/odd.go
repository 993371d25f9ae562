package layerstest

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/slipwaybuild/slipway/solver/layers"
)

var oddCases = map[string]func(*Bench){
	"implied parents":        impliedParents,
	"ghost names":            ghostNames,
	"ghosts of a step":       ghostsOfStep,
	"mended ones are shared": mendedShared,
	"hidden odd directories": hiddenOdd,
}

// impliedParents: images exist whose layers leave parent directories out.
func impliedParents(b *Bench) {
	low := b.Import(Dir("tmp", 0o1777), Dir("a", 0o700), Dir("a/b", 0o711), Text("a/b/x", "1"))
	mid := b.Import(Text("tmp/file", "1"), Text("a/b/y", "1"), Text("only/here/z", "1"))
	top := b.Import(Text("a/b/w", "1"))
	check := func(r *layers.Ref) {
		b.Helper()
		got := b.Snapshot(r)
		for name, want := range map[string]string{"tmp": "41777 0:0 981173106.", "a": "40700 0:0 981173106.", "a/b": "40711 0:0 981173106.", "only/here": "40755 0:0 "} {
			if !strings.HasPrefix(got[name], want) {
				b.Errorf("%s: got %s, want %s", name, got[name], want)
			}
		}
	}
	r := b.Stack(low, mid, top)
	check(r)
	check(r)
	b.Step(r, func(root string) {
		info, err := os.Stat(filepath.Join(root, "tmp"))
		b.OK(err)
		if info.Mode() != os.ModeDir|os.ModeSticky|0o777 {
			b.Errorf("tmp of a step: %v", info.Mode())
		}
	})
}

func ghostNames(b *Bench) {
	low := b.Import(Text("x", "1"))
	high := b.Import(Dir("d", 0o750), Dir("d/e", 0o755), Whiteout("d/e/", "gone"), Text("d/e/here", "1"), Whiteout("only/", "ghost"))
	got := b.Snapshot(b.Stack(low, high))
	if got["d/e/gone"] != "" || got["only/ghost"] != "" || !strings.HasPrefix(got["d"], "40750 0:0 981173106.") {
		b.Errorf("got %v", got)
	}
	if got := b.Snapshot(high); got["d/e/gone"] != "" || got["d/e/here"] == "" {
		b.Errorf("alone: got %v", got)
	}
}

// ghostsOfStep takes the layer of a step away from what it was made on, as a merge does.
func ghostsOfStep(b *Bench) {
	base := baseLayer(b)
	step := b.Step(base, func(root string) { change(b, root) })
	other := b.Import(Text("other", "1"))
	got := b.Snapshot(b.Stack(other, step))
	if got["etc/old"] != "" || got["etc/new"] == "" || got["other"] == "" {
		b.Errorf("got %v", got)
	}
	if _, err := b.S.Solidify(b.Context(), step); err != nil {
		b.Fatal(err)
	}
	Same(b, b.Snapshot(b.Stack(other, step)), got)
}

func mendedShared(b *Bench) {
	low := b.Import(Dir("tmp", 0o1777))
	high := b.Import(Text("tmp/file", "1"))
	r := b.Stack(low, high)
	count := func() int {
		found, err := os.ReadDir(filepath.Join(b.Root, "chains"))
		b.OK(err)
		return len(found)
	}
	b.Snapshot(r)
	b.Snapshot(b.Stack(low, high))
	if n := count(); n != 1 {
		b.Errorf("%d mended", n)
	}
	b.OK(r.Release())
	b.OK(low.Release())
	b.OK(high.Release())
	b.OK(b.S.Prune(b.Context(), layers.PruneOptions{}, nil))
	if n := count(); n != 1 && n != 0 {
		b.Errorf("%d mended after all was pruned", n)
	}
}

func hiddenOdd(b *Bench) {
	low := b.Import(Dir("tmp", 0o1777), Dir("gone", 0o755))
	mid := b.Import(Text("tmp/file", "1"), Text("gone/file", "1"), Dir("ghost", 0o755), Whiteout("ghost/", "g"))
	top := b.Import(Whiteout("", "tmp"), Text("gone", "a file now"), Dir("ghost", 0o700), Whiteout("ghost/", ".wh..opq"))
	got := b.Snapshot(b.Stack(low, mid, top))
	names(b, got, ".", "gone", "ghost")
	if !strings.HasPrefix(got["ghost"], "40700 ") {
		b.Errorf("ghost: %s", got["ghost"])
	}
}
