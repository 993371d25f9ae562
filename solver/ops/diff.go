package ops

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/moby/buildkit/solver/pb"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// diffOp gives what has to be put on lower to make upper of it. Where upper is made of lower and further layers, these are
// the answer; otherwise the trees are compared.
type diffOp struct {
	f            *Factory
	name         string
	lower, upper int // noIndex is scratch
}

func (d *diffOp) named(name string) { d.name = name }

func (l *Loader) diffOp(op *pb.DiffOp, inputs int) (solver.Op, int, error) {
	if op == nil || op.Lower == nil || op.Upper == nil {
		return nil, 0, errors.New("diff op without lower or upper input")
	}
	want := 0
	for _, i := range []int64{op.Lower.Input, op.Upper.Input} {
		if i < noIndex || i >= int64(inputs) {
			return nil, 0, fmt.Errorf("diff op of input %d has %d inputs", i, inputs)
		}
		if i != noIndex {
			want++
		}
	}
	if want != inputs {
		return nil, 0, fmt.Errorf("diff op of %d inputs has %d", want, inputs)
	}
	return &diffOp{f: l.f, lower: int(op.Lower.Input), upper: int(op.Upper.Input)}, 1, nil
}

func (d *diffOp) Key(context.Context, solver.Call) (solver.Parts, error) {
	parts := solver.Parts{{Name: "op", Value: "diff"}}
	return append(parts, indexParts("input", []int{d.lower, d.upper})...), nil
}

func (d *diffOp) Selector(int) solver.Selector { return nil }

func (d *diffOp) Run(ctx context.Context, call solver.Call, inputs []solver.Result) ([]solver.Result, error) {
	var lower, upper solver.Result
	if d.lower != noIndex {
		lower = inputs[d.lower]
	}
	if d.upper != noIndex {
		upper = inputs[d.upper]
	}
	below, above := idsOf(lower), idsOf(upper)
	if len(below) == 0 {
		return []solver.Result{NewResult(d.f.held(upper))}, nil
	}
	if len(below) <= len(above) && slices.Equal(below, above[:len(below)]) {
		ok, err := d.exact(ctx, RefOf(lower), RefOf(upper), len(below))
		if err != nil {
			return nil, err
		}
		if ok {
			return []solver.Result{NewResult(d.f.store.Slice(RefOf(upper), len(below), len(above)))}, nil
		}
	}
	for _, i := range []int{d.lower, d.upper} {
		if i == noIndex {
			continue
		}
		if err := d.f.fetchInput(ctx, call, i, inputs[i]); err != nil {
			return nil, err
		}
	}
	ref, err := d.compute(ctx, RefOf(lower), RefOf(upper))
	if err != nil {
		return nil, err
	}
	return []solver.Result{NewResult(ref)}, nil
}

// compute packs the difference of two trees into a layer.
func (d *diffOp) compute(ctx context.Context, lower, upper *layers.Ref) (*layers.Ref, error) {
	from, err := d.f.tree(ctx, lower)
	if err != nil {
		return nil, lost(d.lower, err)
	}
	to, err := d.f.tree(ctx, upper)
	if err != nil {
		return nil, lost(d.upper, err)
	}
	delta, err := diffTrees(ctx, from, to)
	if err != nil {
		return nil, fmt.Errorf("compare trees: %w", err)
	}
	return d.f.store.Pack(ctx, delta.Changes(), layers.ImportOptions{
		Labels: layers.Labels{Description: d.name, Use: layers.UseRegular},
	})
}

// diffTrees returns a delta over from that looks like to.
func diffTrees(ctx context.Context, from, to fstree.Tree) (*fstree.Delta, error) {
	c := &treeDiff{from: from, to: to, delta: fstree.NewDelta(from), links: map[string][]string{}, put: map[string]bool{}}
	a, err := from.Stat(ctx, "")
	if err != nil {
		return nil, err
	}
	b, err := to.Stat(ctx, "")
	if err != nil {
		return nil, err
	}
	if !b.Implied && !sameAttributes(a, b) {
		if err := c.delta.Put(ctx, plain(b), nil); err != nil {
			return nil, err
		}
	}
	if err := c.dir(ctx, ""); err != nil {
		return nil, err
	}
	return c.delta, c.relink(ctx)
}
