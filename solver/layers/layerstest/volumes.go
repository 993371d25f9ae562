package layerstest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/slipwaybuild/slipway/solver/layers"
)

var volumeCases = map[string]func(*Bench){
	"shared":         volumeShared,
	"private":        volumePrivate,
	"locked":         volumeLocked,
	"locked in turn": volumeTurns,
	"mixed":          volumeMixed,
	"base":           volumeBase,
	"bad base":       volumeBadBase,
	"prune":          volumePrune,
	"survives":       volumeSurvives,
	"maker leaves":   volumeMakerLeaves,
	"packed":         volumePacked,
}

func (b *Bench) volume(key string, sharing layers.Sharing) *layers.Volume {
	b.Helper()
	v, err := b.S.Volume(b.Context(), layers.VolumeOptions{Key: key, Sharing: sharing, Mode: 0o750, UID: 12, GID: 34, Description: "mount " + key})
	b.OK(err)
	b.Cleanup(func() { _ = v.Release() }) // the test may have
	return v
}

func volumeShared(b *Bench) {
	one, two := b.volume("k", layers.Shared), b.volume("k", "")
	if one.Path() != two.Path() {
		b.Error("two directories")
	}
	info, err := os.Stat(one.Path())
	b.OK(err)
	if info.Mode().Perm() != 0o750 {
		b.Errorf("mode %v", info.Mode())
	}
	if other := b.volume("other", layers.Shared); other.Path() == one.Path() {
		b.Error("one directory for two keys")
	}
	b.OK(one.Release())
	if err := one.Release(); !errors.Is(err, layers.ErrReleased) {
		b.Errorf("second release: %v", err)
	}
}

func volumePrivate(b *Bench) {
	one := b.volume("k", layers.Private)
	two := b.volume("k", layers.Private)
	if one.Path() == two.Path() {
		b.Error("one directory")
	}
	first := one.Path()
	b.OK(one.Release())
	if three := b.volume("k", layers.Private); three.Path() != first {
		b.Error("a free one was not used again")
	}
}

func volumeLocked(b *Bench) {
	one := b.volume("k", layers.Locked)
	ctx, cancel := context.WithCancel(b.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := b.S.Volume(ctx, layers.VolumeOptions{Key: "k", Sharing: layers.Locked})
		failed <- err
	}()
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		b.Errorf("got %v", err)
	}
	path := one.Path()
	got := make(chan *layers.Volume, 1)
	go func() {
		v, err := b.S.Volume(b.Context(), layers.VolumeOptions{Key: "k", Sharing: layers.Locked})
		if err != nil {
			b.Error(err)
		}
		got <- v
	}()
	b.OK(one.Release())
	two := <-got
	if two.Path() != path {
		b.Error("two directories")
	}
	b.OK(two.Release())
}

// volumeTurns has many take a locked volume; never two may have it.
func volumeTurns(b *Bench) {
	done := make(chan error)
	const n = 16
	for i := range n {
		go func() {
			sharing := layers.Locked
			if i%4 == 0 {
				sharing = layers.Private
			}
			v, err := b.S.Volume(b.Context(), layers.VolumeOptions{Key: "k", Sharing: sharing, Mode: 0o700})
			if err != nil {
				done <- err
				return
			}
			lock := filepath.Join(v.Path(), "lock")
			err = os.Mkdir(lock, 0o700)
			done <- errors.Join(err, os.Remove(lock), v.Release())
		}()
	}
	for range n {
		b.OK(<-done)
	}
}

func volumeMixed(b *Bench) {
	one := b.volume("k", layers.Shared)
	if v := b.volume("k", layers.Private); v.Path() == one.Path() {
		b.Error("private one is shared")
	}
	ctx, cancel := context.WithCancel(b.Context())
	cancel()
	if _, err := b.S.Volume(ctx, layers.VolumeOptions{Key: "k", Sharing: layers.Locked}); !errors.Is(err, context.Canceled) {
		b.Errorf("locked while shared: %v", err)
	}
	if _, err := b.S.Volume(b.Context(), layers.VolumeOptions{Key: "k", Sharing: "some"}); err == nil {
		b.Error("unknown sharing was taken")
	}
}

func volumeBase(b *Bench) {
	base := b.Stack(b.Import(Dir("a", 0o755), Dir("a/b", 0o755), Text("a/b/x", "1"), Text("a/b/y", "1"), Link("l", "a")), b.Import(Whiteout("a/b/", "y")))
	v, err := b.S.Volume(b.Context(), layers.VolumeOptions{Key: "k", Base: base, BasePath: "l/b", Mode: 0o700, UID: 5})
	b.OK(err)
	got := Snapshot(b, v.Path())
	names(b, got, ".", "x")
	b.Write(filepath.Join(v.Path(), "z"), "z")
	b.OK(v.Release())
	v, err = b.S.Volume(b.Context(), layers.VolumeOptions{Key: "k", Base: base, BasePath: "l/b", Mode: 0o700, UID: 5})
	b.OK(err)
	names(b, Snapshot(b, v.Path()), ".", "x", "z")
	b.OK(v.Release())
}

func volumeBadBase(b *Bench) {
	base := b.Import(Text("file", "1"))
	if v, err := b.S.Volume(b.Context(), layers.VolumeOptions{Key: "k", Base: base, BasePath: "file", Mode: 0o700}); err == nil {
		b.OK(v.Release())
		b.Error("a file became a directory")
	}
	b.OK(b.volume("k", layers.Locked).Release()) // and the key is free
}

func volumePrune(b *Bench) {
	used, idle := b.volume("used", layers.Locked), b.volume("idle", layers.Locked)
	b.OK(idle.Release())
	var gone []layers.Usage
	b.OK(b.S.Prune(b.Context(), layers.PruneOptions{}, func(u layers.Usage) { gone = append(gone, u) }))
	if len(gone) != 1 || gone[0].Description != "mount idle" || gone[0].Use != layers.UseCacheMount || !gone[0].Mutable {
		b.Errorf("removed %+v", gone)
	}
	b.Write(filepath.Join(used.Path(), "x"), "x")
	if _, err := os.Stat(idle.Path()); !os.IsNotExist(err) {
		b.Errorf("idle one is still there: %v", err)
	}
}

func volumeSurvives(b *Bench) {
	v := b.volume("k", layers.Shared)
	b.Write(filepath.Join(v.Path(), "x"), "x")
	b.OK(v.Release())
	b.Reopen(nil)
	names(b, Snapshot(b, b.volume("k", layers.Shared).Path()), ".", "x")
}

// volumeMakerLeaves: who comes second must not suffer from the first one's leaving.
func volumeMakerLeaves(b *Bench) {
	base := b.Import(Text("x", "1"))
	gone, cancel := context.WithCancel(b.Context())
	cancel()
	done := make(chan error)
	for i := range 8 {
		ctx := b.Context()
		if i%2 == 0 {
			ctx = gone
		}
		go func() {
			v, err := b.S.Volume(ctx, layers.VolumeOptions{Key: "k", Base: base, Mode: 0o700})
			if err == nil {
				err = v.Release()
			} else if ctx == gone {
				err = nil
			}
			done <- err
		}()
	}
	for range 8 {
		b.OK(<-done)
	}
	names(b, Snapshot(b, b.volume("k", layers.Locked).Path()), ".", "x")
}

// A volume is packed as it is, when nobody uses it, and another one may begin with that.
func volumePacked(b *Bench) {
	ctx := b.Context()
	if r, err := b.S.PackVolume(ctx, "none"); !errors.Is(err, layers.ErrNotFound) {
		b.Fatalf("packed what is not there: %v, %v", r, err)
	}
	if state, quiet := b.S.VolumeState("none"); state != "" || quiet {
		b.Errorf("state of what is not there: %q, %v", state, quiet)
	}
	v := b.volume("k", layers.Shared)
	b.Write(filepath.Join(v.Path(), "f"), "content")
	b.OK(os.Mkdir(filepath.Join(v.Path(), "d"), 0o700))
	b.OK(os.Link(filepath.Join(v.Path(), "f"), filepath.Join(v.Path(), "d/g")))
	busy, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if r, err := b.S.PackVolume(busy, "k"); !errors.Is(err, context.DeadlineExceeded) {
		b.Fatalf("packed what is in use: %v, %v", r, err)
	}
	if _, quiet := b.S.VolumeState("k"); quiet {
		b.Error("what is in use is said to be quiet")
	}
	b.OK(v.Release())
	r, err := b.S.PackVolume(ctx, "k")
	b.OK(err)
	state, quiet := b.S.VolumeState("k")
	if again, _ := b.S.VolumeState("k"); state == "" || !quiet || again != state {
		b.Errorf("state %q, %v, then %q", state, quiet, again)
	}
	asked := 0
	o := layers.VolumeOptions{Key: "other", Mode: 0o700, UID: 5, Begin: func(context.Context) (*layers.Ref, error) {
		asked++
		return r.Clone(), nil
	}}
	for range 2 { // the second time it is there
		w, err := b.S.Volume(ctx, o)
		b.OK(err)
		for _, name := range []string{"f", "d/g"} {
			if got, err := os.ReadFile(filepath.Join(w.Path(), name)); err != nil || string(got) != "content" {
				b.Errorf("%s of the other volume: %q, %v", name, got, err)
			}
		}
		if st, err := os.Stat(w.Path()); err != nil || st.Mode().Perm() != 0o700 {
			b.Errorf("the other volume: %v, %v", st, err)
		}
		b.OK(w.Release())
	}
	if asked != 1 {
		b.Errorf("asked %d times what a volume begins with", asked)
	}
	if now, _ := b.S.VolumeState("k"); now != state {
		b.Errorf("the state changed from %q to %q, and nobody was in there", state, now)
	}
	id := r.IDs()[0]
	b.OK(b.S.Discard(r))
	if r, err := b.S.Pin(ctx, id); !errors.Is(err, layers.ErrNotFound) {
		b.Errorf("what was discarded is there: %v, %v", r, err)
	}
	b.OK(b.volume("empty", layers.Shared).Release())
	if r, err := b.S.PackVolume(ctx, "empty"); !errors.Is(err, layers.ErrNotFound) {
		b.Errorf("packed nothing: %v, %v", r, err)
	}
	failed := errors.New("no way")
	_, err = b.S.Volume(ctx, layers.VolumeOptions{Key: "third", Begin: func(context.Context) (*layers.Ref, error) { return nil, failed }})
	if !errors.Is(err, failed) {
		b.Errorf("a volume whose beginning failed: %v", err)
	}
}
