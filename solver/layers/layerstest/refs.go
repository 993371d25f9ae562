package layerstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/layers"
)

var refCases = map[string]func(*Bench){
	"released once":        releasedOnce,
	"clone outlives":       cloneOutlives,
	"after release":        afterRelease,
	"pin all or none":      pinAllOrNone,
	"stack and slice":      stackAndSlice,
	"leaks are reported":   leaksReported,
	"equal bytes, one":     equalBytes,
	"pin races with prune": pinRace,
	"cancelled import":     cancelledImport,
}

func releasedOnce(b *Bench) {
	r := b.Import(Text("x", "1"))
	b.OK(r.Release())
	if err := r.Release(); !errors.Is(err, layers.ErrReleased) {
		b.Errorf("second release: %v", err)
	}
}

func cloneOutlives(b *Bench) {
	r := b.Import(Text("x", "1"))
	c := b.Owned(r.Clone())
	b.OK(r.Release())
	b.OK(b.S.Prune(b.Context(), layers.PruneOptions{All: true}, nil))
	names(b, b.Snapshot(c), ".", "x")
}

func afterRelease(b *Bench) {
	r := b.Import(Text("x", "1"))
	b.OK(r.Release())
	_, err := b.S.Tree(b.Context(), r)
	if !errors.Is(err, layers.ErrReleased) {
		b.Errorf("tree: %v", err)
	}
	for _, dead := range []*layers.Ref{r.Clone(), b.S.Stack(r), b.S.Slice(r, 0, 1)} {
		if _, err := b.S.Compose(b.Context(), dead, nil); !errors.Is(err, layers.ErrReleased) {
			b.Errorf("compose: %v", err)
		}
	}
}

func pinAllOrNone(b *Bench) {
	r := b.Import(Text("x", "1"))
	id := r.IDs()[0]
	if _, err := b.S.Pin(b.Context(), id, "dir:nothing"); !errors.Is(err, layers.ErrNotFound) {
		b.Errorf("got %v", err)
	}
	again, err := b.S.Pin(b.Context(), id)
	b.OK(err)
	b.OK(again.Release())
	b.OK(r.Release())
	b.OK(b.S.Prune(b.Context(), layers.PruneOptions{}, nil))
	if _, err := b.S.Pin(b.Context(), id); !errors.Is(err, layers.ErrNotFound) {
		b.Errorf("after prune: %v", err)
	}
}

func stackAndSlice(b *Bench) {
	x, y, z := b.Import(Text("x", "1")), b.Import(Text("y", "1")), b.Import(Text("z", "1"))
	s := b.Stack(x, b.Stack(y, z))
	if got, want := fmt.Sprint(s.IDs()), fmt.Sprint([]layers.ID{x.IDs()[0], y.IDs()[0], z.IDs()[0]}); got != want {
		b.Errorf("got %s, want %s", got, want)
	}
	names(b, b.Snapshot(b.Owned(b.S.Slice(s, 1, 3))), ".", "y", "z")
}

func leaksReported(b *Bench) {
	r := b.Import(Text("x", "1"))
	leaked := b.S.Stack(r)
	_ = leaked.IDs()
	u, err := b.S.NewUpper(b.Context())
	b.OK(err)
	m, err := b.S.Compose(b.Context(), r, u)
	b.OK(err)
	v, err := b.S.Volume(b.Context(), layers.VolumeOptions{Key: "kept", Mode: 0o755})
	b.OK(err)
	b.OK(r.Release())
	err = b.S.Close()
	b.S = nil
	defer b.Reopen(nil)
	if err == nil {
		b.Fatal("nothing was reported")
	}
	for _, want := range []string{"4 things", "leaksReported", "root file system", "upper", "volume", string(leaked.IDs()[0])} {
		if !strings.Contains(err.Error(), want) {
			b.Errorf("%q is not in %v", want, err)
		}
	}
	_, _ = m.Path(), v.Path()
}

func equalBytes(b *Bench) {
	data, diffID := Tar(b, Text("x", strings.Repeat("1", 1<<20)))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			o := layers.ImportOptions{}
			if i%2 == 0 {
				o.Want = diffID
			}
			r, err := b.S.Import(b.Context(), bytes.NewReader(data), o)
			if err != nil {
				b.Error(err)
				return
			}
			if r.IDs()[0] != layers.ID(diffID) {
				b.Errorf("id %s", r.IDs()[0])
			}
			b.Owned(r)
		})
	}
	wg.Wait()
	if n := countFiles(b, "blobs"); n != 1 {
		b.Errorf("%d blob files", n)
	}
	if n := countFiles(b, "tmp"); n != 0 {
		b.Errorf("%d temporary files", n)
	}
}

// pinRace lets builds look layers up, use and make them while a collector removes all it can.
func pinRace(b *Bench) {
	type made struct {
		data []byte
		id   digest.Digest
	}
	var all []made
	for i := range 12 {
		data, id := Tar(b, Text(fmt.Sprintf("f%d", i), strings.Repeat("x", 1<<(i+4))))
		all = append(all, made{data, id})
	}
	ctx, stop := context.WithCancel(b.Context())
	var builders, collector sync.WaitGroup
	for seed := range uint64(4) {
		builders.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // to be repeatable
			for range 60 {
				raceOnce(b, all[rnd.IntN(len(all))].data, all[rnd.IntN(len(all))].id, rnd.IntN(4) == 0)
			}
		})
	}
	collector.Go(func() {
		for ctx.Err() == nil {
			if err := b.S.Prune(ctx, layers.PruneOptions{All: true}, nil); err != nil && ctx.Err() == nil {
				b.Errorf("prune: %v", err)
			}
		}
	})
	builders.Wait()
	stop()
	collector.Wait()
}

func raceOnce(b *Bench, data []byte, id digest.Digest, mount bool) {
	r, err := b.S.Import(b.Context(), bytes.NewReader(data), layers.ImportOptions{})
	if err != nil {
		b.Errorf("import: %v", err)
		return
	}
	defer func() { _ = r.Release() }() // once
	refs := []*layers.Ref{r}
	p, err := b.S.Pin(b.Context(), layers.ID(id))
	switch {
	case err == nil:
		defer func() { _ = p.Release() }() // once
		refs = append(refs, p)
	case !errors.Is(err, layers.ErrNotFound):
		b.Errorf("pin: %v", err)
	}
	s := b.S.Stack(refs...)
	defer func() { _ = s.Release() }() // once
	tree, err := b.S.Tree(b.Context(), s)
	if err != nil {
		b.Errorf("tree: %v", err)
		return
	}
	if found, err := tree.ReadDir(b.Context(), ""); err != nil || len(found) == 0 {
		b.Errorf("list: %v %v", found, err)
	}
	if !mount {
		return
	}
	m, err := b.S.Compose(b.Context(), s, nil)
	if err != nil {
		b.Errorf("compose: %v", err)
		return
	}
	if err := m.Close(); err != nil {
		b.Errorf("unmount: %v", err)
	}
}

// blockingReader gives a little and then waits for the end of its context, as a connection does.
type blockingReader struct {
	ctx  context.Context
	data []byte
	hit  func()
}

func (r *blockingReader) Read(p []byte) (int, error) {
	if len(r.data) > 0 {
		n := copy(p, r.data)
		r.data = r.data[n:]
		return n, nil
	}
	r.hit()
	<-r.ctx.Done()
	return 0, r.ctx.Err()
}

func cancelledImport(b *Bench) {
	data, _ := Tar(b, Text("x", "1"))
	ctx, cancel := context.WithCancel(b.Context())
	_, err := b.S.Import(ctx, &blockingReader{ctx, data[:600], cancel}, layers.ImportOptions{})
	if !errors.Is(err, context.Canceled) {
		b.Errorf("got %v", err)
	}
	if n := countFiles(b, "tmp") + countFiles(b, "blobs"); n != 0 {
		b.Errorf("%d files are left", n)
	}
}
