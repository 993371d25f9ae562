package manifest

import (
	"context"
	"errors"
	"io/fs"
	"sync"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/exporter/attestation"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// layerOf looks files up in the layers of an image, the topmost first. A layer that is not here is brought when it is looked at.
func (a *Assembler) layerOf(s Single, platform exporter.Platform, in exporter.Input, p progress.Writer) attestation.LayerOf {
	var mu sync.Mutex
	trees := make([]fstree.Tree, len(s.Layers))
	open := func(ctx context.Context, i int) (fstree.Tree, error) {
		mu.Lock()
		defer mu.Unlock()
		if trees[i] != nil {
			return trees[i], nil
		}
		at := s.stack[i]
		one := a.Layers.Slice(platform.Ref, at, at+1)
		err := a.Layers.Fetch(ctx, one, in.Fetcher, p)
		if err = errors.Join(err, one.Release()); err != nil {
			return nil, err
		}
		trees[i], err = a.Layers.LayerTree(ctx, platform.Ref, at)
		return trees[i], err
	}
	return func(ctx context.Context, path string) (digest.Digest, bool, error) {
		for i := len(s.Layers) - 1; i >= 0; i-- {
			tree, err := open(ctx, i)
			if err != nil {
				return "", false, err
			}
			e, err := tree.Stat(ctx, path)
			switch {
			case errors.Is(err, fs.ErrNotExist):
			case err != nil:
				return "", false, err
			case !e.Whiteout && !e.Implied:
				return s.Layers[i].Digest, true, nil
			}
		}
		return "", false, nil
	}
}
