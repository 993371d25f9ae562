package ops

import (
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/moby/buildkit/solver/pb"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// fileOp changes trees: copies, makes, removes. It is a list of actions, each of which makes a new state of one input or of an
// earlier action; states asked for as outputs become one layer each on top of the input they began with.
type fileOp struct {
	f       *Factory
	name    string
	actions []*pb.FileAction
	inputs  int
	// outputs holds the action of each output.
	outputs []int
	// order lists the actions that outputs need, those that others build on first.
	order []int
	// uses counts who reads each action's state: other actions and outputs.
	uses      []int
	selectors []solver.Selector
	leftovers leftovers
	leaks     *Leaks
}

func (o *fileOp) named(name string) { o.name = name }

func (o *fileOp) Selector(i int) solver.Selector {
	if i < 0 || i >= len(o.selectors) || o.selectors[i] == nil {
		return nil
	}
	return o.selectors[i]
}

// ActionError says which action of a file op failed.
type ActionError struct {
	Index int
	Err   error
}

func (e *ActionError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *ActionError) Unwrap() error { return e.Err }

func (l *Loader) fileOp(op *pb.FileOp, inputs int) (solver.Op, int, error) {
	if op == nil || len(op.Actions) == 0 {
		return nil, 0, errors.New("file op without actions")
	}
	if len(op.Actions) > maxActions {
		return nil, 0, fmt.Errorf("%w: %d file actions, the limit is %d", ErrTooLarge, len(op.Actions), maxActions)
	}
	o := &fileOp{f: l.f, leaks: l.o.Leaks, actions: op.Actions, inputs: inputs, uses: make([]int, len(op.Actions))}
	byOutput := map[int64]int{}
	for k, a := range o.actions {
		if err := o.check(a); err != nil {
			return nil, 0, fmt.Errorf("file action %d: %w", k, err)
		}
		if a.Output == noIndex {
			continue
		}
		if _, ok := byOutput[a.Output]; ok {
			return nil, 0, fmt.Errorf("file action %d: output %d is there already", k, a.Output)
		}
		byOutput[a.Output] = k
	}
	if len(byOutput) == 0 {
		return nil, 0, errors.New("file op without outputs")
	}
	o.outputs = make([]int, len(byOutput))
	for out, k := range byOutput {
		if out < 0 || out >= int64(len(o.outputs)) {
			return nil, 0, fmt.Errorf("file action %d: output %d of an op with %d", k, out, len(o.outputs))
		}
		o.outputs[out] = k
		o.uses[k]++
	}
	if err := o.plan(); err != nil {
		return nil, 0, err
	}
	o.selectors = o.selections()
	keepFailed(o.selectors, &o.leftovers)
	return o, len(o.outputs), nil
}

// check looks at the indices of one action, and that there is one.
func (o *fileOp) check(a *pb.FileAction) error {
	if a == nil || a.Action == nil {
		return errors.New("it is empty")
	}
	limit := int64(o.inputs + len(o.actions))
	if a.Input < noIndex || a.Input >= limit {
		return fmt.Errorf("input %d, there are %d", a.Input, limit)
	}
	if a.SecondaryInput < noIndex || a.SecondaryInput >= limit {
		return fmt.Errorf("secondary input %d, there are %d", a.SecondaryInput, limit)
	}
	if a.Output < noIndex {
		return fmt.Errorf("output %d", a.Output)
	}
	owner := ownerOf(a)
	for _, u := range []*pb.UserOpt{owner.GetUser(), owner.GetGroup()} {
		if n, ok := u.GetUser().(*pb.UserOpt_ByName); ok {
			if n.ByName == nil || n.ByName.Input < 0 || n.ByName.Input >= limit {
				return fmt.Errorf("owner %q of input %d, there are %d", n.ByName.GetName(), n.ByName.GetInput(), limit)
			}
		}
	}
	return nil
}

func ownerOf(a *pb.FileAction) *pb.ChownOpt {
	switch x := a.Action.(type) {
	case *pb.FileAction_Copy:
		return x.Copy.GetOwner()
	case *pb.FileAction_Mkdir:
		return x.Mkdir.GetOwner()
	case *pb.FileAction_Mkfile:
		return x.Mkfile.GetOwner()
	case *pb.FileAction_Symlink:
		return x.Symlink.GetOwner()
	}
	return nil
}

// reads lists the states an action looks at, its primary input first.
func reads(a *pb.FileAction) []int64 {
	out := []int64{a.Input}
	if _, ok := a.Action.(*pb.FileAction_Copy); ok {
		out = append(out, a.SecondaryInput)
	}
	owner := ownerOf(a)
	for _, u := range []*pb.UserOpt{owner.GetUser(), owner.GetGroup()} {
		if n, ok := u.GetUser().(*pb.UserOpt_ByName); ok {
			out = append(out, n.ByName.Input)
		}
	}
	return out
}

// plan orders the actions and counts the uses of their states. An action may refer to a later one, so this is a search.
func (o *fileOp) plan() error {
	const (
		open = iota + 1
		done
	)
	state := make([]int, len(o.actions))
	var visit func(k int) error
	visit = func(k int) error {
		switch state[k] {
		case done:
			return nil
		case open:
			return fmt.Errorf("file action %d needs itself", k)
		}
		state[k] = open
		for _, idx := range reads(o.actions[k]) {
			if j := int(idx) - o.inputs; j >= 0 {
				o.uses[j]++
				if err := visit(j); err != nil {
					return err
				}
			}
		}
		state[k] = done
		o.order = append(o.order, k)
		return nil
	}
	for _, k := range o.outputs {
		if err := visit(k); err != nil {
			return err
		}
	}
	return nil
}

// selections finds the inputs of which only some paths are read: those that are nobody's primary input.
func (o *fileOp) selections() []solver.Selector {
	sel := make([][]fstree.Selector, o.inputs)
	required := make([][]string, o.inputs)
	whole := make([]bool, o.inputs)
	for _, a := range o.actions {
		if a.Input >= 0 && a.Input < int64(o.inputs) {
			whole[a.Input] = true
		}
		if c, ok := a.Action.(*pb.FileAction_Copy); ok && a.SecondaryInput >= 0 && a.SecondaryInput < int64(o.inputs) {
			i := a.SecondaryInput
			sel[i] = append(sel[i], copySelectors(c.Copy)...)
			if len(c.Copy.IncludePatterns) > 0 {
				required[i] = append(required[i], c.Copy.RequiredPaths...)
			}
		}
		owner := ownerOf(a)
		for file, u := range map[string]*pb.UserOpt{passwdFile: owner.GetUser(), groupFile: owner.GetGroup()} {
			if n, ok := u.GetUser().(*pb.UserOpt_ByName); ok && n.ByName.Input < int64(o.inputs) {
				s := fstree.Selector{Path: file, DigestOptions: fstree.DigestOptions{Follow: true}}
				sel[n.ByName.Input] = append(sel[n.ByName.Input], s)
			}
		}
	}
	out := make([]solver.Selector, o.inputs)
	for i := range out {
		if !whole[i] && len(sel[i]) > 0 {
			slices.Sort(required[i])
			out[i] = newSelector(o.f, i, settle(sel[i]), slices.Compact(required[i]))
		}
	}
	return out
}

// copySelectors says what a copy reads of its source.
func copySelectors(c *pb.FileActionCopy) []fstree.Selector {
	s := fstree.Selector{Path: cleanRel(c.Src), DigestOptions: fstree.DigestOptions{
		Include:  c.IncludePatterns,
		Exclude:  c.ExcludePatterns,
		Follow:   c.FollowSymlink,
		Wildcard: c.AllowWildcard && hasWildcard(c.Src),
	}}
	out := []fstree.Selector{s}
	if c.AttemptUnpackDockerCompatibility && !c.FollowSymlink {
		// An archive behind a symlink is unpacked, anything else behind one is not followed: both may matter.
		s.Follow = true
		out = append(out, s)
	}
	return out
}

// settle puts selectors in an order of their own: the same paths read by actions in another order are the same selection.
func settle(sel []fstree.Selector) []fstree.Selector {
	key := func(s fstree.Selector) string { return selectorKey([]fstree.Selector{s}, nil) }
	slices.SortFunc(sel, func(a, b fstree.Selector) int {
		if c := fstree.Compare(a.Path, b.Path); c != 0 {
			return c
		}
		switch ka, kb := key(a), key(b); {
		case ka < kb:
			return -1
		case ka > kb:
			return 1
		}
		return 0
	})
	return slices.CompactFunc(sel, func(a, b fstree.Selector) bool { return key(a) == key(b) })
}

// srcName is what of a source path counts beside its content: the name it may be copied as.
func srcName(src string) string {
	if cleanRel(src) == "" {
		return "/"
	}
	return path.Base(src)
}
