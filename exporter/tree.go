package exporter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/slipwaybuild/slipway/exporter/attrs"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// TreeOptions say what of a build's files goes out, and how it is laid out.
type TreeOptions struct {
	// Split gives each platform a directory of its own; nil does so where the client asked for several platforms.
	Split *bool
	// Source is the directory to take of each platform's result; empty is the root.
	Source string
	// Epoch is the output's own; see [Input.Epoch].
	Epoch attrs.Epoch
	// AttestationPrefix begins the names of files with statements.
	AttestationPrefix string
}

// splits tells whether each platform has a directory of its own.
func (o TreeOptions) splits(in Input) bool {
	if o.Split != nil {
		return *o.Split
	}
	return in.MultiPlatform || len(in.Platforms) > 1
}

// ParseTreeOptions reads the attributes that all outputs of files have.
func ParseTreeOptions(a map[string]string) (o TreeOptions, err error) {
	if _, ok := a["platform-split"]; ok {
		split, err := attrs.Bool(a, "platform-split", true)
		if err != nil {
			return o, err
		}
		o.Split = &split
	}
	if o.Epoch, err = attrs.ParseEpoch(a); err != nil {
		return o, err
	}
	// It is the client who deletes what is not in the output; all there is to do here is to send everything at once.
	switch mode := strings.ToLower(strings.TrimSpace(a["mode"])); mode {
	case "", "copy", "delete":
	default:
		return o, fmt.Errorf("invalid local exporter mode %q", mode)
	}
	o.AttestationPrefix = a["attestation-prefix"]
	if strings.ContainsAny(o.AttestationPrefix, "/\x00") {
		return o, fmt.Errorf("invalid attestation-prefix %q: it begins names, not directories", o.AttestationPrefix)
	}
	source, ok := a["src"]
	if ok && source == "" {
		return o, errors.New("empty value for src; omit it to export the entire filesystem")
	}
	o.Source = source
	return o, nil
}

// Trees makes one tree of what a build gave: that of its platform, or one directory per platform ("linux_amd64"), or the trees
// of all platforms laid over each other, which must not bring two different things to one path. It is valid while the input is.
func Trees(ctx context.Context, store *layers.Store, in Input, o TreeOptions, p progress.Writer) (fstree.Tree, error) {
	var list []namedTree
	for _, platform := range in.Platforms {
		t, err := platformTree(ctx, store, in, platform, o, p)
		if err != nil {
			return nil, fmt.Errorf("read result of %s: %w", platform.ID, err)
		}
		if slices.ContainsFunc(list, func(other namedTree) bool { return other.name == t.name }) {
			return nil, fmt.Errorf("two platforms are called %q", t.name)
		}
		list = append(list, t)
	}
	switch {
	case len(list) == 0:
		return nil, errors.New("the build gave no platform")
	case o.splits(in):
		return newSubdirs(list), nil
	case len(list) == 1:
		return list[0].tree, nil
	}
	if err := checkOverlap(ctx, list); err != nil {
		return nil, err
	}
	var over []fstree.Tree
	for _, t := range list {
		over = append(over, t.tree)
	}
	return fstree.View(over...), nil
}

// namedTree is the result for one platform.
type namedTree struct {
	name    string // of its directory
	tree    fstree.Tree
	modTime time.Time // of its directory

	attested time.Time // of files with statements
}

func platformTree(ctx context.Context, store *layers.Store, in Input, platform Platform, o TreeOptions, p progress.Writer) (namedTree, error) {
	t := namedTree{name: dirName(platform.ID), modTime: time.Unix(0, 0)}
	epoch, err := in.Epoch(o.Epoch, platform.ID)
	if err != nil {
		return t, err
	}
	if err := store.Fetch(ctx, platform.Ref, in.Fetcher, p); err != nil {
		return t, err
	}
	if t.tree, err = store.Tree(ctx, platform.Ref); err != nil {
		return t, err
	}
	if o.Source != "" {
		if t.tree, err = sub(ctx, t.tree, o.Source); err != nil {
			return t, fmt.Errorf("src=%s: %w", o.Source, err)
		}
	}
	if epoch != nil {
		t.tree, t.modTime = clamped{Tree: t.tree, epoch: *epoch}, *epoch
	}
	t.attested = attestedAt(epoch)
	return t, t.attest(ctx, store, in, platform, o, p)
}

// sub is the tree below a directory, named as a process with t as its root would name it.
func sub(ctx context.Context, t fstree.Tree, source string) (fstree.Tree, error) {
	dir, err := fstree.Resolve(ctx, t, source, true)
	if err != nil {
		return nil, err
	}
	e, err := t.Stat(ctx, dir)
	if err != nil {
		return nil, err
	}
	if !e.IsDir() {
		return nil, fstree.ErrNotDir
	}
	return fstree.Sub(t, dir), nil
}

// dirName turns the frontend's name of a platform into that of a directory, and never into one outside.
func dirName(id string) string {
	name := strings.NewReplacer("/", "_", `\`, "_", ":", "_", "\x00", "_").Replace(id)
	if strings.Trim(name, ".") == "" {
		return "_" + strings.Repeat("_", len(name))
	}
	return name
}

// checkOverlap refuses a path that two platforms have, unless it is a directory in both.
func checkOverlap(ctx context.Context, list []namedTree) error {
	type owner struct {
		name string
		dir  bool
	}
	owners := map[string]owner{}
	for _, t := range list {
		err := fstree.Walk(ctx, t.tree, "", func(e fstree.Entry) error {
			first, ok := owners[e.Path]
			if ok && !(first.dir && e.IsDir()) {
				return fmt.Errorf("cannot overwrite %s from %s with %s when split option is disabled", e.Path, first.name, t.name)
			}
			if !ok {
				owners[e.Path] = owner{t.name, e.IsDir()}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// clamped is a tree in which nothing is newer than an epoch.
type clamped struct {
	fstree.Tree
	epoch time.Time
}

func (c clamped) clamp(e fstree.Entry) fstree.Entry {
	if e.ModTime.After(c.epoch) {
		e.ModTime = c.epoch
	}
	return e
}

func (c clamped) Stat(ctx context.Context, path string) (fstree.Entry, error) {
	e, err := c.Tree.Stat(ctx, path)
	return c.clamp(e), err
}

func (c clamped) ReadDir(ctx context.Context, path string) ([]fstree.Entry, error) {
	list, err := c.Tree.ReadDir(ctx, path)
	list = slices.Clone(list)
	for i := range list {
		list[i] = c.clamp(list[i])
	}
	return list, err
}
