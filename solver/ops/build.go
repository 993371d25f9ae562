package ops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/moby/buildkit/client/llb"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	"github.com/slipwaybuild/slipway/solver"
)

// maxDefinition bounds a definition read from a file, in bytes; it is what a message may have that carries one.
const maxDefinition = 16 << 20

// buildOp reads a definition from a file of its input and solves that in the same build.
type buildOp struct {
	f     *Factory
	input int
	file  string
	attrs map[string]string
	solve SolveFunc
	// policy is what the nested definition's sources are held against.
	policy string
}

func (l *Loader) buildOp(op *pb.BuildOp, inputs int) (solver.Op, int, error) {
	if op == nil {
		return nil, 0, errors.New("build op is empty")
	}
	if op.Builder != int64(pb.LLBBuilder) {
		return nil, 0, errors.New("build op: only the LLB builder can be used")
	}
	if op.Def != nil {
		return nil, 0, errors.New("build op with a definition of its own: only one in a file of an input can be used")
	}
	in, ok := op.Inputs[pb.LLBDefinitionInput]
	if !ok || in == nil {
		return nil, 0, fmt.Errorf("build op without input %q", pb.LLBDefinitionInput)
	}
	if in.Input < 0 || in.Input >= int64(inputs) {
		return nil, 0, fmt.Errorf("build op of input %d has %d inputs", in.Input, inputs)
	}
	if l.o.Solve == nil {
		return nil, 0, errors.New("build ops cannot be used here")
	}
	b := &buildOp{f: l.f, input: int(in.Input), file: pb.LLBDefaultDefinitionFile, attrs: op.Attrs, solve: l.o.Solve, policy: l.o.Policy}
	if name, ok := op.Attrs[pb.AttrLLBDefinitionFilename]; ok {
		b.file = name
	}
	return b, 1, nil
}

func (b *buildOp) Key(context.Context, solver.Call) (solver.Parts, error) {
	parts := append(solver.Parts{{Name: "op", Value: "build"}}, indexParts("input", []int{b.input})...)
	parts = append(parts, solver.Part{Name: "file", Value: b.file})
	if b.policy != "" {
		parts = append(parts, solver.Part{Name: "policy", Value: b.policy})
	}
	for _, k := range slices.Sorted(maps.Keys(b.attrs)) {
		parts = append(parts, solver.Part{Name: "attr." + k, Value: b.attrs[k]})
	}
	return parts, nil
}

func (b *buildOp) Selector(int) solver.Selector { return nil }

func (b *buildOp) Run(ctx context.Context, call solver.Call, inputs []solver.Result) ([]solver.Result, error) {
	if err := b.f.fetchInputToRead(ctx, call, b.input, inputs[b.input]); err != nil {
		return nil, err
	}
	dt, err := b.f.readFile(ctx, RefOf(inputs[b.input]), gwclient.ReadRequest{Filename: b.file}, maxDefinition)
	if err != nil {
		return nil, fmt.Errorf("read build definition: %w", err)
	}
	def, err := llb.ReadFrom(bytes.NewReader(dt))
	if err != nil {
		return nil, fmt.Errorf("read build definition %s: %w", b.file, err)
	}
	r, err := b.solve(ctx, def.ToPB())
	if errors.Is(err, solver.ErrClosed) {
		// The build that lends itself has ended; others that wait bring their own.
		return nil, &solver.LenderError{Err: err}
	}
	if err != nil {
		return nil, err
	}
	return []solver.Result{r}, nil
}
