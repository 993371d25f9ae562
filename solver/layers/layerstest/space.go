package layerstest

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/slipwaybuild/slipway/solver/layers"
)

var spaceCases = map[string]func(*Bench){
	"adds up to du":           addsUp,
	"usage":                   usageLines,
	"prune options":           pruneOptions,
	"held is kept":            heldIsKept,
	"pruned but held":         prunedButHeld,
	"volumes retire":          volumesRetire,
	"prune to a size":         pruneToSize,
	"limit evicts":            limitEvicts,
	"limit refuses":           limitRefuses,
	"limit and a step":        limitStep,
	"prune frees at once":     pruneFrees,
	"children before parents": childrenFirst,
}

// noise does not get smaller.
func noise(b *Bench, n int) string {
	b.Helper()
	data := make([]byte, n)
	_, err := rand.Read(data)
	b.OK(err)
	return string(data)
}

func addsUp(b *Bench) {
	base := b.Import(Dir("tmp", 0o1777), Text("a", noise(b, 3<<20)), Text("b", noise(b, 100)))
	odd := b.Import(Text("tmp/x", noise(b, 1<<20)))
	step := b.Step(b.Stack(base, odd), func(root string) {
		b.Write(filepath.Join(root, "f"), noise(b, 2<<20))
		for i := range 200 {
			b.Write(filepath.Join(root, fmt.Sprintf("small%d", i)), "x")
		}
		b.OK(os.Link(filepath.Join(root, "f"), filepath.Join(root, "g")))
	})
	packed := b.Step(base, func(root string) { b.Write(filepath.Join(root, "p"), noise(b, 1<<20)) })
	_, err := b.S.Solidify(b.Context(), packed)
	b.OK(err)
	v := b.volume("k", layers.Shared)
	b.Write(filepath.Join(v.Path(), "v"), noise(b, 1<<20))
	u, err := b.S.NewUpper(b.Context())
	b.OK(err)
	b.Snapshot(b.Stack(base, odd, step))
	b.compareDU()
	b.OK(v.Release())
	b.OK(u.Discard())
	b.OK(packed.Release())
	b.compareDU()
	b.OK(b.S.Prune(b.Context(), layers.PruneOptions{All: true}, nil))
	b.compareDU()
	b.Reopen(nil)
	b.compareDU()
}

// compareDU compares what the store says with what du(1) says. The two look at different moments, between which the index may be written
// behind, so they are asked again before they are said to differ.
func (b *Bench) compareDU() {
	b.Helper()
	// What was thrown away goes in the background.
	b.OK(b.S.Prune(b.Context(), layers.PruneOptions{Filter: func(layers.Usage) bool { return false }}, nil))
	for tries := 0; ; tries++ {
		du, sum, all := b.measure()
		if diff := du - sum; diff <= du/100 && diff >= -du/100 {
			return
		}
		if tries == 5 {
			b.Errorf("du says %d, the store %d: %+v", du, sum, all)
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (b *Bench) measure() (du, sum int64, all []layers.Usage) {
	b.Helper()
	all, err := b.S.Usage(b.Context())
	b.OK(err)
	for _, u := range all {
		sum += u.Size
	}
	out, err := exec.CommandContext(b.Context(), "du", "-sx", "--block-size=1", b.Root).Output()
	b.OK(err)
	du, err = strconv.ParseInt(strings.Fields(string(out))[0], 10, 64)
	b.OK(err)
	return du, sum, all
}

func (b *Bench) usage(id layers.ID) (layers.Usage, bool) {
	b.Helper()
	all, err := b.S.Usage(b.Context())
	b.OK(err)
	for _, u := range all {
		if u.ID == string(id) {
			return u, true
		}
	}
	return layers.Usage{}, false
}

func usageLines(b *Bench) {
	data, _ := Tar(b, Text("x", "1"))
	start := time.Now()
	r, err := b.S.Import(b.Context(), bytes.NewReader(data), layers.ImportOptions{
		Labels: layers.Labels{Description: "what it is", Use: layers.UseLocal}, Parents: []layers.ID{"p"},
	})
	b.OK(err)
	id := r.IDs()[0]
	u, ok := b.usage(id)
	if !ok || u.Description != "what it is" || u.Use != layers.UseLocal || !u.InUse || u.Shared || u.Mutable || len(u.Parents) != 1 || u.Size == 0 || u.CreatedAt.Before(start) {
		b.Errorf("got %+v", u)
	}
	b.OK(b.S.Hold(b.Context(), "image", r))
	b.OK(r.Release())
	again, err := b.S.Pin(b.Context(), id)
	b.OK(err)
	b.OK(again.Release())
	u, _ = b.usage(id)
	if u.InUse || !u.Shared || u.UsageCount != 1 {
		b.Errorf("got %+v", u)
	}
	b.OK(b.S.Drop(b.Context(), "image"))
	if u, _ = b.usage(id); u.Shared {
		b.Errorf("got %+v", u)
	}
}

func pruneOptions(b *Bench) {
	add := func(use layers.Use) layers.ID {
		data, _ := Tar(b, Text(string(use), noise(b, 1<<16)))
		r, err := b.S.Import(b.Context(), bytes.NewReader(data), layers.ImportOptions{Labels: layers.Labels{Use: use}})
		b.OK(err)
		b.OK(r.Release())
		return r.IDs()[0]
	}
	regular, local, frontend := add(layers.UseRegular), add(layers.UseLocal), add(layers.UseFrontend)
	prune := func(o layers.PruneOptions, want ...layers.ID) {
		b.Helper()
		var got []layers.ID
		b.OK(b.S.Prune(b.Context(), o, func(u layers.Usage) { got = append(got, layers.ID(u.ID)) }))
		if fmt.Sprint(got) != fmt.Sprint(want) {
			b.Errorf("%+v removed %v, want %v", o, got, want)
		}
	}
	prune(layers.PruneOptions{KeepDuration: time.Hour})
	prune(layers.PruneOptions{MaxUsed: 1 << 30})
	prune(layers.PruneOptions{Reserved: 1 << 30})
	prune(layers.PruneOptions{MinFree: 1})
	prune(layers.PruneOptions{Filter: func(u layers.Usage) bool { return u.Use == layers.UseLocal }}, local)
	prune(layers.PruneOptions{}, regular)
	prune(layers.PruneOptions{All: true}, frontend)
}

// pruneToSize: what was used often stays, and what an image holds does not count.
func pruneToSize(b *Bench) {
	add := func() *layers.Ref { return b.Import(Text("x", noise(b, 1<<20))) }
	held, once, often := add(), add(), add()
	b.OK(b.S.Hold(b.Context(), "image:1", held))
	id := often.IDs()[0]
	b.OK(errors.Join(held.Release(), often.Release(), once.Release()))
	for range 3 {
		r, err := b.S.Pin(b.Context(), id)
		b.OK(err)
		b.OK(r.Release())
	}
	var gone []string
	b.OK(b.S.Prune(b.Context(), layers.PruneOptions{MaxUsed: 3 << 19}, func(u layers.Usage) { gone = append(gone, u.ID) }))
	if len(gone) != 1 || gone[0] != string(once.IDs()[0]) {
		b.Errorf("removed %v, want %v alone", gone, once.IDs())
	}
	gone = nil
	b.OK(b.S.Prune(b.Context(), layers.PruneOptions{Reserved: 3 << 19}, func(u layers.Usage) { gone = append(gone, u.ID) }))
	if len(gone) != 0 {
		b.Errorf("removed %v, which was reserved", gone)
	}
	b.OK(b.S.Drop(b.Context(), "image:1"))
}

func heldIsKept(b *Bench) {
	r := b.Import(Text("x", "1"))
	id := r.IDs()[0]
	b.OK(b.S.Hold(b.Context(), "image:1", r))
	b.OK(r.Release())
	b.OK(b.S.Prune(b.Context(), layers.PruneOptions{All: true}, nil))
	held, err := b.S.Held(b.Context(), "image:1")
	b.OK(err)
	names(b, b.Snapshot(held), ".", "x")
	other := b.Import(Text("y", "1"))
	b.OK(b.S.Hold(b.Context(), "image:1", other)) // replaces
	b.OK(held.Release())
	b.OK(b.S.Prune(b.Context(), layers.PruneOptions{}, nil))
	if _, err := b.S.Pin(b.Context(), id); !errors.Is(err, layers.ErrNotFound) {
		b.Errorf("what is no longer held: %v", err)
	}
	b.OK(b.S.Drop(b.Context(), "image:1"))
	b.OK(b.S.Drop(b.Context(), "image:1"))
	if _, err := b.S.Held(b.Context(), "image:1"); !errors.Is(err, layers.ErrNotFound) {
		b.Errorf("held after drop: %v", err)
	}
}

func prunedButHeld(b *Bench) {
	r := b.Import(Text("x", "1"))
	id := r.IDs()[0]
	b.OK(b.S.Hold(b.Context(), "image:1", r))
	b.OK(r.Release())
	retired := func(want bool) {
		b.Helper()
		u, ok := b.usage(id)
		if !ok || u.Retired != want || b.S.Retired(id) != want || b.S.Cached(id) == want {
			b.Errorf("listed %t, retired %t and %t, want %t", ok, u.Retired, b.S.Retired(id), want)
		}
	}
	b.OK(b.S.Prune(b.Context(), layers.PruneOptions{}, nil))
	retired(false)
	b.OK(b.S.Prune(b.Context(), layers.PruneOptions{All: true, KeepDuration: time.Hour}, nil))
	retired(false)
	b.OK(b.S.Prune(b.Context(), layers.PruneOptions{All: true}, nil))
	retired(true)
	b.Reopen(nil)
	retired(true)
	again, err := b.S.Pin(b.Context(), id)
	b.OK(err)
	retired(false)
	b.OK(again.Release())
	b.OK(b.S.Drop(b.Context(), "image:1"))
	if b.S.Cached("sha256:nothing") {
		b.Error("what is not known counts as cached")
	}
}

func volumesRetire(b *Bench) {
	open := func(key string) *layers.Volume {
		b.Helper()
		v, err := b.S.Volume(b.Context(), layers.VolumeOptions{Key: key})
		b.OK(err)
		return v
	}
	write := func(v *layers.Volume) { b.OK(os.WriteFile(filepath.Join(v.Path(), "f"), nil, 0o600)) }
	filled := func(v *layers.Volume) bool {
		_, err := os.Stat(filepath.Join(v.Path(), "f"))
		return err == nil
	}
	busy, idle, based, other := open("a"), open("b"), open("a:base"), open("ab")
	for _, v := range []*layers.Volume{busy, idle, based, other} {
		write(v)
	}
	b.OK(errors.Join(idle.Release(), based.Release(), other.Release()))
	b.S.RetireVolumes("a")
	b.S.RetireVolumes("b")
	for key, want := range map[string]bool{"a": false, "a:base": false, "b": false, "ab": true} {
		v := open(key)
		if got := filled(v); got != want {
			b.Errorf("volume %s has what was written: %t, want %t", key, got, want)
		}
		b.OK(v.Release())
	}
	if !filled(busy) {
		b.Error("a volume in use was emptied")
	}
	path := busy.Path()
	b.OK(busy.Release())
	if v := open("a"); v.Path() == path {
		b.Error("a retired volume was given out again")
	} else {
		b.OK(v.Release())
	}
}

func limitTo(n int64) func(*layers.Options) {
	return func(o *layers.Options) { o.Limit = n }
}

func limitEvicts(b *Bench) {
	b.Reopen(limitTo(8 << 20))
	var last layers.ID
	for range 12 {
		r := b.Import(Text("x", noise(b, 1<<20)))
		last = r.IDs()[0]
		b.OK(r.Release())
	}
	if _, ok := b.usage(last); !ok {
		b.Error("the newest was evicted")
	}
	var sum int64
	all, err := b.S.Usage(b.Context())
	b.OK(err)
	for _, u := range all {
		sum += u.Size
	}
	if sum > 8<<20 {
		b.Errorf("%d bytes used", sum)
	}
}

func limitRefuses(b *Bench) {
	b.Reopen(limitTo(4 << 20))
	held := b.Import(Text("x", noise(b, 2<<20)))
	data, _ := Tar(b, Text("y", noise(b, 3<<20)))
	_, err := b.S.Import(b.Context(), bytes.NewReader(data), layers.ImportOptions{})
	var full *layers.NoSpaceError
	if !errors.Is(err, layers.ErrNoSpace) || !errors.As(err, &full) || full.Limit != 4<<20 || full.Used < 2<<20 {
		b.Errorf("got %v", err)
	}
	if n := countFiles(b, "tmp"); n != 0 {
		b.Errorf("%d temporary files", n)
	}
	b.OK(held.Release())
	r, err := b.S.Import(b.Context(), bytes.NewReader(data), layers.ImportOptions{})
	b.OK(err)
	b.OK(r.Release())
}

func limitStep(b *Bench) {
	b.Reopen(limitTo(4 << 20))
	base := b.Import(Text("x", "1"))
	u, err := b.S.NewUpper(b.Context())
	b.OK(err)
	m, err := b.S.Compose(b.Context(), base, u)
	b.OK(err)
	b.Write(filepath.Join(m.Path(), "big"), noise(b, 5<<20))
	b.OK(m.Close())
	if _, err := b.S.Seal(b.Context(), u, layers.ImportOptions{}); !errors.Is(err, layers.ErrNoSpace) {
		b.Errorf("got %v", err)
	}
	b.Step(base, func(root string) { b.Write(filepath.Join(root, "small"), "x") })
}

func pruneFrees(b *Bench) {
	step := b.Step(b.Import(Text("x", "1")), func(root string) {
		for i := range 300 {
			b.Write(filepath.Join(root, fmt.Sprint(i)), "x")
		}
	})
	b.OK(step.Release())
	b.OK(b.S.Prune(b.Context(), layers.PruneOptions{}, nil))
	for _, dir := range []string{"dirs", "trash"} {
		left, err := os.ReadDir(filepath.Join(b.Root, dir))
		b.OK(err)
		if len(left) > 0 {
			b.Errorf("%s: %v", dir, left)
		}
	}
}

func childrenFirst(b *Bench) {
	base := b.Import(Text("x", "1"))
	step := b.Step(base, func(root string) { b.Write(filepath.Join(root, "y"), "y") })
	stack, err := b.S.Pin(b.Context(), base.IDs()[0], step.IDs()[0])
	b.OK(err)
	for _, r := range []*layers.Ref{base, step, stack} {
		b.OK(r.Release())
	}
	var gone []layers.ID
	b.OK(b.S.Prune(b.Context(), layers.PruneOptions{}, func(u layers.Usage) { gone = append(gone, layers.ID(u.ID)) }))
	if len(gone) != 2 || gone[0] != step.IDs()[0] {
		b.Errorf("removed %v", gone)
	}
}
