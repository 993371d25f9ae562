package layers_test

import (
	"context"
	"testing"

	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/layerstest"
)

func TestErofs(t *testing.T)    { layerstest.Run(t, opener(layers.Erofs)) }
func TestUnpacked(t *testing.T) { layerstest.Run(t, opener(layers.Unpacked)) }

func opener(realisation string) layerstest.Open {
	return func(ctx context.Context, root string, change func(*layers.Options)) (*layers.Store, error) {
		o := layers.Options{Root: root, Realisation: realisation}
		if change != nil {
			change(&o)
		}
		return layers.Open(ctx, o)
	}
}
