package remotecache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/cachestore"
	"github.com/slipwaybuild/slipway/solver/layers"
	"golang.org/x/sync/errgroup"
)

// writesAtOnce is how many layers are packed and written at a time.
const writesAtOnce = 4

// emptyDiffID is the digest of emptyTar.
const emptyDiffID digest.Digest = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"

func refOf(r solver.Result) *layers.Ref {
	if r == nil {
		return nil
	}
	return cachestore.RefOf(r)
}

// source is where one layer is to be found here.
type source struct {
	ref *layers.Ref
	at  int
}

// written is what became of one layer.
type written struct {
	layer Layer
	empty bool
	lost  bool
}

// collect sees to it that the target has the layers of steps, and says what the cache has.
func (r *export) collect(ctx context.Context, steps []solver.Step) (*Cache, error) {
	sources := map[layers.ID]source{}
	for _, s := range steps {
		for _, res := range s.Results {
			if ref := refOf(res); ref != nil {
				for i, id := range ref.IDs() {
					if _, ok := sources[id]; !ok {
						sources[id] = source{ref, i}
					}
				}
			}
		}
	}
	var mu sync.Mutex
	done := map[layers.ID]written{}
	eg, egCtx := errgroup.WithContext(ctx)
	eg.SetLimit(writesAtOnce)
	for id, src := range sources {
		eg.Go(func() error {
			w, err := r.write(egCtx, src)
			mu.Lock()
			defer mu.Unlock()
			done[id] = w
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return nil, err
	}
	c := &Cache{}
	at := map[digest.Digest]int{}
	for _, s := range steps {
		if e, ok := c.entry(s, done, at); ok && !e.partial() {
			e.Used = r.x.now().Truncate(time.Second) // as it is written
			c.Entries = append(c.Entries, e)
		}
	}
	return c, nil
}

// entry makes the entry of a step, in which outputs are absent of which a layer is lost; false if there is nothing to be told of it.
func (c *Cache) entry(s solver.Step, done map[layers.ID]written, at map[digest.Digest]int) (Entry, bool) {
	e := Entry{Identity: s.Identity, Promises: s.Promises, Contents: s.Contents, Step: s.Vertex.ID, Name: s.Vertex.Name}
	for _, res := range s.Results {
		ref := refOf(res)
		if ref == nil {
			e.Outputs = append(e.Outputs, Output{Nil: true})
			continue
		}
		e.Outputs = append(e.Outputs, c.output(ref.IDs(), done, at))
	}
	return e, len(e.Outputs) > 0 && len(e.Outputs) <= maxOutputs && !e.useless()
}

func (c *Cache) output(ids []layers.ID, done map[layers.ID]written, at map[digest.Digest]int) Output {
	lost := func(id layers.ID) bool { return done[id].lost }
	if len(ids) > maxStack || slices.ContainsFunc(ids, lost) {
		return Output{Absent: true}
	}
	o := Output{}
	for _, id := range ids {
		w := done[id]
		if w.empty {
			o.Stack = append(o.Stack, NoLayer)
			continue
		}
		n, ok := at[w.layer.DiffID]
		if !ok {
			n = len(c.Layers)
			c.Layers = append(c.Layers, w.layer)
			at[w.layer.DiffID] = n
		}
		o.Stack = append(o.Stack, n)
	}
	return o
}

// write brings one layer to the target, unless it has it.
func (r *export) write(ctx context.Context, src source) (w written, err error) {
	one := r.x.layers.Slice(src.ref, src.at, src.at+1)
	defer func() { err = errors.Join(err, one.Release()) }()
	ids, err := r.x.layers.Solidify(ctx, one)
	if err == nil {
		w.empty, err = r.empty(ctx, one, ids[0])
	}
	if err == nil && !w.empty {
		w.layer, err = r.put(ctx, one, ids[0])
	}
	if ctx.Err() == nil && (errors.Is(err, layers.ErrNotFound) || errdefs.IsNotFound(err) && one.Lost() != nil) {
		r.note(fmt.Sprintf("leaving out what needs a layer that is gone: %s", one.IDs()[0]))()
		return written{lost: true}, nil
	}
	return w, err
}

// empty tells whether a layer has no content. One that came from elsewhere is taken by its digest alone, fetched or not.
func (r *export) empty(ctx context.Context, one *layers.Ref, diffID digest.Digest) (bool, error) {
	if diffID == emptyDiffID || one.Layers()[0].Remote != nil {
		return diffID == emptyDiffID, nil
	}
	return r.x.layers.IsEmpty(ctx, one, 0)
}

func (r *export) put(ctx context.Context, one *layers.Ref, diffID digest.Digest) (Layer, error) {
	if l, ok := r.have[diffID.String()]; ok {
		there, err := r.Target.Has(ctx, l.Descriptor)
		if err != nil {
			return l, fmt.Errorf("look for layer %s: %w", l.Descriptor.Digest, err)
		}
		if there {
			return l, nil
		}
	}
	packed, err := r.Pack(ctx, one)
	if err != nil {
		return Layer{}, fmt.Errorf("prepare layer %s: %w", diffID, err)
	}
	l := packed.Layer
	l.Descriptor.MediaType = mediaTypeOf(l.Descriptor)
	there, err := r.Target.Has(ctx, l.Descriptor)
	if err != nil || there {
		return l, err
	}
	done := r.note("writing layer " + l.Descriptor.Digest.String())
	if err := r.Target.Put(ctx, l.Descriptor, packed.Blob, packed.From); err != nil {
		return l, fmt.Errorf("error writing layer blob: %w", err)
	}
	done()
	return l, nil
}
