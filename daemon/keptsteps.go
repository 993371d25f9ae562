package daemon

import (
	"context"

	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/frontend"
	"github.com/slipwaybuild/slipway/solver/cachestore"
)

// attrKeepSteps is the option of any build by which clients have what each step made kept with the result, for [FrontendCompare].
const attrKeepSteps = "slipway.keep-steps"

// keptStep is what one step made, in the form in which the history keeps it.
type keptStep struct {
	Name    string             `json:"name"`
	Outputs []cachestore.Stack `json:"outputs"`
}

// keptSteps lists what the steps of a result made, inputs before their users, if the client asked for it.
func (b *build) keptSteps(ctx context.Context, r Request, res *frontend.Result, in exporter.Input) ([]keptStep, error) {
	if _, asked := r.FrontendAttrs[attrKeepSteps]; !asked {
		return nil, nil
	}
	out, err := b.gather(ctx, res, in)
	if err != nil {
		return nil, err
	}
	steps := make([]keptStep, 0, len(out.steps))
	for _, s := range out.steps {
		one := keptStep{Name: s.Vertex.Name}
		for _, output := range s.Results {
			var stack cachestore.Stack
			if ref := cachestore.RefOf(output); ref != nil {
				stack = cachestore.NameStack(ref)
			}
			one.Outputs = append(one.Outputs, stack)
		}
		steps = append(steps, one)
	}
	return steps, nil
}
