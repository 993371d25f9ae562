package fstree

import (
	"context"
	"errors"
	"io/fs"
)

// Walk calls fn for the entry at root and for everything below it: parents before children, siblings sorted bytewise. Symlinks
// are not followed. fn may return [fs.SkipDir] to leave out what is inside a directory (or, for anything else, the rest of the
// directory it is in) and [fs.SkipAll] to end the walk; any other error ends it too and is returned as it is.
func Walk(ctx context.Context, t Tree, root string, fn func(Entry) error) error {
	e, err := t.Stat(ctx, root)
	if err != nil {
		return err
	}
	err = walk(ctx, t, e, fn)
	if errors.Is(err, fs.SkipDir) || errors.Is(err, fs.SkipAll) {
		return nil
	}
	return err
}

func walk(ctx context.Context, t Tree, e Entry, fn func(Entry) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := fn(e); err != nil || !e.IsDir() {
		if errors.Is(err, fs.SkipDir) && e.IsDir() {
			return nil
		}
		return err
	}
	es, err := t.ReadDir(ctx, e.Path)
	if err != nil {
		return err
	}
	for _, c := range es {
		if err := walk(ctx, t, c, fn); err != nil {
			if errors.Is(err, fs.SkipDir) {
				return nil
			}
			return err
		}
	}
	return nil
}
