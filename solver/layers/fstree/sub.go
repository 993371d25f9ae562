package fstree

import (
	"context"

	digest "github.com/opencontainers/go-digest"
)

// Empty is a tree with nothing but an implied root.
func Empty() Tree { return emptyTree{} }

type emptyTree struct{}

func (emptyTree) Stat(_ context.Context, path string) (Entry, error) {
	if path != "" {
		return Entry{}, notExist("stat", path)
	}
	return impliedRoot(), nil
}

func (emptyTree) ReadDir(_ context.Context, path string) ([]Entry, error) {
	if path != "" {
		return nil, notExist("readdir", path)
	}
	return nil, nil
}

func (emptyTree) Open(_ context.Context, path string) (Content, error) {
	if path != "" {
		return nil, notExist("open", path)
	}
	return nil, pathError("open", path, ErrNotRegular)
}

// Sub is the tree whose root is the directory dir of t; dir must be resolved. What a hard link says of a first name outside of
// dir is lost: it becomes a file of its own.
func Sub(t Tree, dir string) Tree {
	if dir == "" {
		return t
	}
	if s, ok := t.(*subTree); ok {
		return &subTree{t: s.t, dir: join(s.dir, dir)}
	}
	return &subTree{t: t, dir: dir}
}

type subTree struct {
	t   Tree
	dir string
}

func (s *subTree) Stat(ctx context.Context, path string) (Entry, error) {
	e, err := s.t.Stat(ctx, join(s.dir, path))
	return s.inside(e), err
}

func (s *subTree) ReadDir(ctx context.Context, path string) ([]Entry, error) {
	es, err := s.t.ReadDir(ctx, join(s.dir, path))
	for i := range es {
		es[i] = s.inside(es[i])
	}
	return es, err
}

func (s *subTree) Open(ctx context.Context, path string) (Content, error) {
	return s.t.Open(ctx, join(s.dir, path))
}

// FileDigest implements [Digester] where the whole tree does.
func (s *subTree) FileDigest(ctx context.Context, path string) (digest.Digest, bool, error) {
	if d, ok := s.t.(Digester); ok {
		return d.FileDigest(ctx, join(s.dir, path))
	}
	return "", false, nil
}

func (s *subTree) inside(e Entry) Entry {
	e.Path = s.cut(e.Path)
	if e.Hardlink != "" && within(s.dir, e.Hardlink) {
		e.Hardlink = s.cut(e.Hardlink)
	} else {
		e.Hardlink = ""
	}
	return e
}

func (s *subTree) cut(p string) string {
	if len(p) <= len(s.dir) {
		return ""
	}
	return p[len(s.dir)+1:]
}
