package daemon

import (
	"context"

	"github.com/slipwaybuild/slipway/solver/layers"
)

// Usage lists what is on disk.
func (e *Engine) Usage(ctx context.Context) ([]layers.Usage, error) { return e.layers.Usage(ctx) }

// Prune removes what nobody uses and o allows, telling removed of each. Content that no image needs any more, and records of
// the cache that name what is gone, go too.
func (e *Engine) Prune(ctx context.Context, o layers.PruneOptions, removed func(layers.Usage)) error {
	if o.Everything() && e.Active() == 0 {
		// Manifests and compressed layers that builds may want again are cache as well.
		if err := e.images.Unkeep(ctx); err != nil {
			return err
		}
	}
	if err := e.images.GC(ctx); err != nil {
		return err
	}
	if err := e.layers.Prune(ctx, o, removed); err != nil {
		return err
	}
	return e.cache.Sweep(ctx)
}
