package filesync

import (
	"bytes"
	"context"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// memTree is a fstree.Tree of entries in memory.
type memTree struct {
	entries map[string]fstree.Entry
	content map[string]string
}

func newMemTree() *memTree {
	return &memTree{map[string]fstree.Entry{"": {Mode: fstree.ModeDir | 0o755}}, map[string]string{}}
}

func (m *memTree) add(e fstree.Entry, content string) *memTree {
	e.Size = int64(len(content))
	m.entries[e.Path], m.content[e.Path] = e, content
	return m
}

func (m *memTree) file(p string, content string) *memTree {
	return m.add(fstree.Entry{Path: p, Mode: fstree.ModeRegular | 0o644}, content)
}

func (m *memTree) dir(p string) *memTree {
	return m.add(fstree.Entry{Path: p, Mode: fstree.ModeDir | 0o755}, "")
}

func (m *memTree) Stat(_ context.Context, p string) (fstree.Entry, error) {
	e, ok := m.entries[p]
	if !ok {
		return e, &fs.PathError{Op: "stat", Path: p, Err: fs.ErrNotExist}
	}
	return e, nil
}

func (m *memTree) ReadDir(_ context.Context, p string) ([]fstree.Entry, error) {
	var out []fstree.Entry
	for name, e := range m.entries {
		dir := path.Dir(name)
		if dir == "." {
			dir = ""
		}
		if name != "" && dir == p {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b fstree.Entry) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

type memContent struct{ *bytes.Reader }

func (memContent) Close() error { return nil }

func (m *memTree) Open(_ context.Context, p string) (fstree.Content, error) {
	c, ok := m.content[p]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
	}
	return memContent{bytes.NewReader([]byte(c))}, nil
}
