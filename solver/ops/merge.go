package ops

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/moby/buildkit/solver/pb"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/layers"
)

// mergeOp puts stacks on each other. Layers are independent of what they lie on, so nothing is read or copied.
type mergeOp struct {
	f      *Factory
	inputs []int
}

func (l *Loader) mergeOp(op *pb.MergeOp, inputs int) (solver.Op, int, error) {
	if op == nil {
		return nil, 0, errors.New("merge op is empty")
	}
	if len(op.Inputs) != inputs {
		return nil, 0, fmt.Errorf("merge op of %d inputs has %d", len(op.Inputs), inputs)
	}
	m := &mergeOp{f: l.f}
	for _, in := range op.Inputs {
		if in.GetInput() < 0 || in.GetInput() >= int64(inputs) {
			return nil, 0, fmt.Errorf("merge op of input %d has %d inputs", in.GetInput(), inputs)
		}
		m.inputs = append(m.inputs, int(in.Input))
	}
	return m, 1, nil
}

func (m *mergeOp) Key(context.Context, solver.Call) (solver.Parts, error) {
	return append(solver.Parts{{Name: "op", Value: "merge"}}, indexParts("input", m.inputs)...), nil
}

func (m *mergeOp) Selector(int) solver.Selector { return nil }

func (m *mergeOp) Run(ctx context.Context, call solver.Call, inputs []solver.Result) ([]solver.Result, error) {
	var refs []*layers.Ref
	for _, i := range m.inputs {
		if err := m.f.keepLent(ctx, call, i, inputs[i]); err != nil {
			return nil, err
		}
		if ref := RefOf(inputs[i]); ref != nil {
			refs = append(refs, ref)
		}
	}
	return []solver.Result{NewResult(m.f.store.Stack(refs...))}, nil
}

// passthroughOp gives its inputs on as outputs, chosen by index.
type passthroughOp struct {
	f       *Factory
	id      string
	outputs []int
}

func (l *Loader) passthroughOp(op *pb.PassthroughOp, inputs int) (solver.Op, int, error) {
	if op == nil {
		return nil, 0, errors.New("passthrough op is empty")
	}
	if op.Id == "" {
		return nil, 0, errors.New("passthrough op without id")
	}
	if len(op.Outputs) == 0 || len(op.Outputs) > maxMounts {
		return nil, 0, fmt.Errorf("passthrough op with %d outputs", len(op.Outputs))
	}
	p := &passthroughOp{f: l.f, id: op.Id}
	for _, in := range op.Outputs {
		if in < 0 || in >= int64(inputs) {
			return nil, 0, fmt.Errorf("passthrough op of input %d has %d inputs", in, inputs)
		}
		p.outputs = append(p.outputs, int(in))
	}
	return p, len(p.outputs), nil
}

func (p *passthroughOp) Key(context.Context, solver.Call) (solver.Parts, error) {
	parts := solver.Parts{{Name: "op", Value: "passthrough"}, {Name: "id", Value: p.id}}
	return append(parts, indexParts("output", p.outputs)...), nil
}

func (p *passthroughOp) Selector(int) solver.Selector { return nil }

func (p *passthroughOp) Run(_ context.Context, _ solver.Call, inputs []solver.Result) ([]solver.Result, error) {
	out := make([]solver.Result, len(p.outputs))
	for i, in := range p.outputs {
		out[i] = NewResult(p.f.held(inputs[in]))
	}
	return out, nil
}

// indexParts puts a list of indices into a key.
func indexParts(name string, indices []int) solver.Parts {
	var parts solver.Parts
	for i, v := range indices {
		parts = append(parts, solver.Part{Name: name + "." + strconv.Itoa(i), Value: strconv.Itoa(v)})
	}
	return parts
}
