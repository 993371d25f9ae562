package layerstest

import (
	"context"
	"errors"
	"os"
	"path/filepath"

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
