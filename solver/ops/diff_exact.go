package ops

import (
	"context"
	"errors"
	"io/fs"
	"slices"

	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// errInexact ends a walk that found what is no change.
var errInexact = errors.New("the layer holds what is no change")

// exact tells whether layers say no more than what changed from lower to the stack they are part of. A step's layer may: a file that
// was moved away and back is in it, and a directory that was removed and made again hides whatever is below, also what the step
// never saw and a merge may put there. Layers that came from elsewhere are taken at their word.
func (d *diffOp) exact(ctx context.Context, lower, upper *layers.Ref, from int) (bool, error) {
	changes := upper.Layers()[from:]
	ofStep := func(l layers.Info) bool { return l.Kind == layers.Directory }
	remote := func(l layers.Info) bool { return l.Kind == layers.Remote }
	if !slices.ContainsFunc(changes, ofStep) || slices.ContainsFunc(upper.Layers(), remote) {
		return true, nil
	}
	below, err := d.f.tree(ctx, lower)
	if err != nil {
		return false, lost(d.lower, err)
	}
	for i, l := range changes {
		if !ofStep(l) {
			continue
		}
		ok, err := d.exactLayer(ctx, below, upper, from+i)
		if !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

func (d *diffOp) exactLayer(ctx context.Context, below fstree.Tree, upper *layers.Ref, i int) (bool, error) {
	tree, err := d.f.store.LayerTree(ctx, upper, i)
	if err != nil {
		return false, lost(d.upper, err)
	}
	c := &treeDiff{from: below, to: tree}
	err = fstree.Walk(ctx, tree, "", func(e fstree.Entry) error {
		if e.Path == "" || e.Whiteout || e.IsDir() && !e.Opaque {
			return nil
		}
		old, err := below.Stat(ctx, e.Path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case e.IsDir():
			return errInexact
		case !sameAttributes(old, e):
			return nil
		}
		same, err := c.sameContent(ctx, old, plain(e))
		if err == nil && same {
			err = errInexact
		}
		return err
	})
	if errors.Is(err, errInexact) {
		return false, nil
	}
	return err == nil, err
}
