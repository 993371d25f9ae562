package manifest

import (
	"context"

	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/solver/layers"
)

// Layer brings a stack of one layer into the form that was asked for, and describes it. The context carries the lease that keeps it
// if it has to be compressed.
func (a *Assembler) Layer(ctx context.Context, one *layers.Ref, f layers.Fetcher, o Options) (Blob, layers.Info, error) {
	in := exporter.Input{Fetcher: f}
	kept, err := a.fetch(ctx, one, in, o, nil)
	if err != nil {
		return Blob{}, layers.Info{}, err
	}
	if _, err := a.Layers.Solidify(ctx, one); err != nil {
		return Blob{}, layers.Info{}, err
	}
	info := one.Layers()[0]
	if kept[0] {
		return a.kept(info, f, o), info, nil
	}
	b, err := a.blob(ctx, one, 0, info, o)
	return b, info, err
}
