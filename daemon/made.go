package daemon

import (
	"context"
	"fmt"

	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/frontend"
	"github.com/slipwaybuild/slipway/frontend/gateway"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/layers"
)

// made is what a build has to write into caches.
type made struct {
	steps      []solver.Step
	byPlatform map[string]*layers.Ref // the outcome; the input's own
}

func (m made) stacks() []*layers.Ref {
	var list []*layers.Ref
	for _, ref := range m.byPlatform {
		list = append(list, ref)
	}
	return list
}

// gather collects the steps that led to a result.
func (b *build) gather(ctx context.Context, res *frontend.Result, in exporter.Input) (made, error) {
	out := made{byPlatform: map[string]*layers.Ref{}}
	for _, p := range in.Platforms {
		out.byPlatform[p.ID] = p.Ref
	}
	var edges []solver.Edge
	err := res.EachRef(func(ref gwclient.Reference) error {
		if gr, ok := ref.(*gateway.Reference); ok && gr != nil {
			if r, ok := gr.Reference.(*reference); ok {
				edges = append(edges, r.graph.Edge())
			}
		}
		return nil
	})
	if err != nil {
		return out, err
	}
	if out.steps, err = b.solver.Known(ctx, edges...); err != nil {
		return out, fmt.Errorf("gather the steps for the cache: %w", err)
	}
	return out, nil
}
