package fstree

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Match returns the paths in t that match pattern, sorted as [Compare] does. The pattern is that of [path.Match], component by
// component: "*" does not match "/". Components without a wildcard are resolved as by [Resolve], so the paths may not look
// like the pattern. Symlinks that a wildcard matches are followed where something must be inside them, at the end only with
// followLast, where a dangling one is left out. No match is no error.
func Match(ctx context.Context, t Tree, pattern string, followLast bool) ([]string, error) {
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, pathError("match", pattern, err)
	}
	todo := components(nil, pattern)
	slices.Reverse(todo)
	found := []string{""}
	for i, comp := range todo {
		var next []string
		for _, dir := range found {
			ps, err := matchIn(ctx, t, dir, comp, followLast || i < len(todo)-1)
			if err != nil {
				return nil, err
			}
			next = append(next, ps...)
		}
		found = next
	}
	slices.SortFunc(found, Compare)
	return slices.Compact(found), nil
}

// HasWildcard says whether pattern holds anything that [Match] takes for more than itself.
func HasWildcard(pattern string) bool { return strings.ContainsAny(pattern, `*?[\`) }

func matchIn(ctx context.Context, t Tree, dir, comp string, follow bool) ([]string, error) {
	if !HasWildcard(comp) {
		p, err := Resolve(ctx, t, join(dir, comp), follow)
		if skippable(err) {
			return nil, nil
		}
		return []string{p}, err
	}
	e, err := t.Stat(ctx, dir)
	if err != nil || !e.IsDir() {
		return nil, err
	}
	es, err := t.ReadDir(ctx, dir)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range es {
		if ok, err := path.Match(comp, e.Name()); err != nil {
			return nil, pathError("match", comp, err)
		} else if !ok || e.Whiteout {
			continue
		}
		p := e.Path
		if e.IsSymlink() && follow {
			if p, err = Resolve(ctx, t, p, true); skippable(err) {
				continue
			} else if err != nil {
				return nil, err
			}
		}
		found = append(found, p)
	}
	return found, nil
}

// skippable says whether err only means that there is nothing at a path.
func skippable(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrNotDir) || errors.Is(err, ErrLoop)
}
