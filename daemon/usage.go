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
	if o.Everything() {
		if err := e.unkeep(ctx); err != nil {
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

// unkeep ends what is kept for builds to come, manifests and compressed layers, unless one runs that may count on it.
func (e *Engine) unkeep(ctx context.Context) error {
	e.beginning.Lock()
	defer e.beginning.Unlock()
	if e.Active() > 0 {
		return nil
	}
	return e.images.Unkeep(ctx)
}
