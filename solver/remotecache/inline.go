package remotecache

import (
	"context"
	"errors"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/layers"
)

// Inline writes the cache that goes into the config of an image with these layers: of the steps of which all layers of an output are
// in it. Their other outputs are absent. It gives nothing if there are none.
func (x *Exporter) Inline(ctx context.Context, steps []solver.Step, outcome *layers.Ref, diffIDs []digest.Digest) ([]byte, error) {
	c := &Cache{}
	at := map[digest.Digest]int{}
	for i, d := range diffIDs {
		c.Layers = append(c.Layers, Layer{DiffID: d})
		if _, ok := at[d]; !ok {
			at[d] = i
		}
	}
	for _, s := range choose(steps, []*layers.Ref{outcome}, false) {
		done, err := x.inImage(ctx, s.Results, at)
		if err != nil {
			return nil, err
		}
		if e, ok := c.entry(s, done, at); ok {
			c.Entries = append(c.Entries, e)
		}
	}
	if len(c.Entries) == 0 || len(c.Layers) != len(diffIDs) {
		return nil, nil
	}
	return c.MarshalInline()
}

// inImage finds the layers of results in the image.
func (x *Exporter) inImage(ctx context.Context, results []solver.Result, at map[digest.Digest]int) (map[layers.ID]written, error) {
	done := map[layers.ID]written{}
	for _, res := range results {
		ref := refOf(res)
		if ref == nil {
			continue
		}
		for i, info := range ref.Layers() {
			_, in := at[info.DiffID]
			w := written{layer: Layer{DiffID: info.DiffID}, lost: !in}
			if !in {
				empty, err := x.emptyAt(ctx, ref, i, info)
				if err != nil {
					return nil, err
				}
				w.empty, w.lost = empty, !empty
			}
			done[info.ID] = w
		}
	}
	return done, nil
}

func (x *Exporter) emptyAt(ctx context.Context, ref *layers.Ref, i int, info layers.Info) (bool, error) {
	if info.DiffID == emptyDiffID || info.Remote != nil {
		return info.DiffID == emptyDiffID, nil
	}
	empty, err := x.layers.IsEmpty(ctx, ref, i)
	if errors.Is(err, layers.ErrNotLocal) {
		return false, nil
	}
	return empty, err
}
