package exporter

import (
	"cmp"
	"context"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// subdirs is a tree with one directory per platform, sorted by name. The directories are root's, whatever the trees' roots are.
type subdirs []namedTree

func newSubdirs(list []namedTree) subdirs {
	return slices.SortedFunc(slices.Values(list), func(a, b namedTree) int { return cmp.Compare(a.name, b.name) })
}

// cut splits a path into the directory and the rest.
func (s subdirs) cut(op, path string) (namedTree, string, error) {
	name, rest, _ := strings.Cut(path, "/")
	for _, t := range s {
		if t.name == name {
			return t, rest, nil
		}
	}
	return namedTree{}, "", &fs.PathError{Op: op, Path: path, Err: fs.ErrNotExist}
}

func (s subdirs) Stat(ctx context.Context, path string) (fstree.Entry, error) {
	if path == "" {
		return s.root(), nil
	}
	t, rest, err := s.cut("stat", path)
	if err != nil {
		return fstree.Entry{}, err
	}
	if rest == "" {
		return dir(t.name, t.modTime), nil
	}
	e, err := t.tree.Stat(ctx, rest)
	if err != nil {
		return fstree.Entry{}, err
	}
	return t.inside(e), nil
}

func (s subdirs) ReadDir(ctx context.Context, path string) ([]fstree.Entry, error) {
	var list []fstree.Entry
	if path == "" {
		for _, t := range s {
			list = append(list, dir(t.name, t.modTime))
		}
		return list, nil
	}
	t, rest, err := s.cut("readdir", path)
	if err != nil {
		return nil, err
	}
	entries, err := t.tree.ReadDir(ctx, rest)
	for _, e := range entries {
		list = append(list, t.inside(e))
	}
	return list, err
}

func (s subdirs) Open(ctx context.Context, path string) (fstree.Content, error) {
	if path == "" {
		return nil, &fs.PathError{Op: "open", Path: path, Err: syscall.EISDIR}
	}
	t, rest, err := s.cut("open", path)
	if err != nil {
		return nil, err
	}
	return t.tree.Open(ctx, rest)
}

// root is as new as the newest of the directories.
func (s subdirs) root() fstree.Entry {
	var newest time.Time
	for _, t := range s {
		if t.modTime.After(newest) {
			newest = t.modTime
		}
	}
	return dir("", newest)
}

// inside is an entry of the tree as seen from above.
func (t namedTree) inside(e fstree.Entry) fstree.Entry {
	e.Path = t.name + "/" + e.Path
	if e.Hardlink != "" {
		e.Hardlink = t.name + "/" + e.Hardlink
	}
	return e
}

func dir(path string, modTime time.Time) fstree.Entry {
	return fstree.Entry{Path: path, Mode: syscall.S_IFDIR | 0o755, ModTime: modTime}
}
