package ops

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/moby/buildkit/solver/pb"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/flight"
	"github.com/slipwaybuild/slipway/solver/guard"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// fileRun is one run of a file op.
type fileRun struct {
	op     *fileOp
	now    time.Time // what "now" is throughout the run
	inputs []fstree.Tree
	states []*fileState // by action, nil until made
	spool  *spool
}

// fileState is what an action made.
type fileState struct {
	delta *fstree.Delta
	// root is the input its changes lie on, noIndex for scratch.
	root int
}

// Run makes the states in order and packs those that are outputs. Contents are not copied before that: a state refers to the
// layers of its inputs.
func (o *fileOp) Run(ctx context.Context, call solver.Call, inputs []solver.Result) ([]solver.Result, error) {
	r := &fileRun{op: o, now: time.Now(), states: make([]*fileState, len(o.actions)), spool: newSpool(o.f.tempDir)}
	defer func() {
		if err := r.spool.close(); err != nil {
			o.f.log.Warn("close unpacked archive", "err", err)
		}
	}()
	for i, in := range inputs {
		if err := o.f.fetchInputToRead(ctx, call, i, in); err != nil {
			return nil, err
		}
		tree, err := o.f.tree(ctx, RefOf(in))
		if err != nil {
			return nil, lost(i, err)
		}
		r.inputs = append(r.inputs, tree)
	}
	for _, k := range o.order {
		if err := r.act(ctx, k); err != nil {
			if errors.Is(err, fstree.ErrChanged) {
				return nil, lostLent(inputs, err)
			}
			return nil, r.keep(ctx, k, err, inputs)
		}
	}
	m := guard.Join(witnessed(call)...)
	results := make([]solver.Result, len(o.outputs))
	for out, k := range o.outputs {
		var ref *layers.Ref
		var err error
		if root := r.states[k].root; root != noIndex {
			err = o.f.keepLent(ctx, call, root, inputs[root])
		}
		if err == nil {
			ref, err = r.pack(ctx, r.states[k], inputs)
		}
		if err == nil {
			results[out] = NewResult(ref)
			err = o.f.guardLayer(ctx, ref, m, guarded{leaks: o.leaks, step: o.name, progress: call.Progress()})
		}
		if err != nil {
			var made []*layers.Ref
			for _, done := range results {
				made = append(made, RefOf(done))
			}
			if errors.As(err, new(*LeakError)) {
				o.f.discard(ctx, made...)
				err = &solver.LenderError{Err: err} // as for other steps
			} else {
				o.f.release(made...)
			}
			return nil, lostLent(inputs, err)
		}
	}
	return results, nil
}

// keep puts beside the error of action k what it was given and what it has made of that so far.
func (r *fileRun) keep(ctx context.Context, k int, err error, inputs []solver.Result) error {
	failed := &ActionError{Index: k, Err: err}
	if flight.IsContextError(err) {
		return failed
	}
	o := r.op
	saw, left := make([]*layers.Ref, len(inputs)), make([]*layers.Ref, len(o.actions))
	for i, in := range inputs {
		saw[i] = o.f.held(in)
	}
	keep := []int{k}
	if second := int(o.actions[k].SecondaryInput) - len(inputs); second >= 0 && second != k {
		keep = append(keep, second)
	}
	for _, i := range keep {
		if r.states[i] == nil {
			continue
		}
		ref, packErr := r.pack(ctx, r.states[i], inputs)
		if packErr != nil {
			o.f.log.Debug("keep what a failed file action made", "err", packErr)
			continue
		}
		left[i] = ref
	}
	return o.leftovers.keep(failed, saw, left)
}

// Close gives back what failed runs left.
func (o *fileOp) Close() error {
	o.leftovers.close(o.f)
	return nil
}

// pack puts a state's changes as one layer on what it began with.
func (r *fileRun) pack(ctx context.Context, s *fileState, inputs []solver.Result) (*layers.Ref, error) {
	f := r.op.f
	var base solver.Result
	if s.root != noIndex {
		base = inputs[s.root]
	}
	layer, err := f.store.Pack(ctx, s.delta.Changes(), layers.ImportOptions{
		Labels:  layers.Labels{Description: r.op.name, Use: layers.UseRegular},
		Parents: idsOf(base),
	})
	if err != nil {
		return nil, err
	}
	below := f.held(base)
	defer f.release(layer, below)
	return f.store.Stack(below, layer), nil
}

// tree is the state with an index of the op: an input, or what an action made.
func (r *fileRun) tree(idx int64) fstree.Tree {
	switch {
	case idx == noIndex:
		return fstree.Empty()
	case idx < int64(r.op.inputs):
		return r.inputs[idx]
	}
	return r.states[idx-int64(r.op.inputs)].delta
}

// begin returns the state that an action on idx changes. A state that nobody else reads is changed in place.
func (r *fileRun) begin(ctx context.Context, idx int64) (*fileState, error) {
	if idx < int64(r.op.inputs) {
		return &fileState{delta: fstree.NewDelta(r.tree(idx)), root: int(idx)}, nil
	}
	k := int(idx) - r.op.inputs
	s := r.states[k]
	if r.op.uses[k] == 1 {
		return s, nil
	}
	d := fstree.NewDelta(r.tree(int64(s.root)))
	if err := replay(ctx, s.delta, d); err != nil {
		return nil, err
	}
	return &fileState{delta: d, root: s.root}, nil
}

// replay makes the changes of one delta to another over the same base. from must not change any more.
func replay(ctx context.Context, from, to *fstree.Delta) error {
	for changes := from.Changes(); ; {
		e, _, err := changes.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if e.Whiteout || e.Opaque {
			if err := to.RemoveAll(ctx, e.Path); err != nil {
				return err
			}
			e.Opaque = false
		}
		if e.Whiteout {
			continue
		}
		if e.Implied {
			if err := to.MkdirAll(ctx, e); err != nil {
				return err
			}
			continue
		}
		var open fstree.OpenFunc
		if e.IsRegular() && e.Hardlink == "" {
			open = fstree.FromTree(from, e.Path)
		}
		if err := to.Put(ctx, e, open); err != nil {
			return err
		}
	}
}

// act runs one action.
func (r *fileRun) act(ctx context.Context, k int) error {
	a := r.op.actions[k]
	s, err := r.begin(ctx, a.Input)
	if err != nil {
		return err
	}
	who, err := r.owner(ctx, ownerOf(a))
	if err != nil {
		return err
	}
	switch x := a.Action.(type) {
	case *pb.FileAction_Copy:
		err = r.copy(ctx, r.tree(a.SecondaryInput), s.delta, x.Copy, who)
	case *pb.FileAction_Mkdir:
		err = r.mkdir(ctx, s.delta, x.Mkdir, who)
	case *pb.FileAction_Mkfile:
		err = r.mkfile(ctx, s.delta, x.Mkfile, who)
	case *pb.FileAction_Symlink:
		err = r.symlink(ctx, s.delta, x.Symlink, who)
	case *pb.FileAction_Rm:
		err = r.rm(ctx, s.delta, x.Rm)
	default:
		err = fmt.Errorf("unknown file action %T", x)
	}
	r.states[k] = s
	return err
}

// timeOf is the time an action asks for: in nanoseconds since 1970, now for -1.
func (r *fileRun) timeOf(ts int64) time.Time {
	if ts == -1 {
		return r.now
	}
	return time.Unix(0, ts)
}
