package fstree

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"

	digest "github.com/opencontainers/go-digest"
)

// viewCache is how many merged entries a view keeps before it starts afresh.
const viewCache = 1 << 18

// View is the merged tree of a stack of layers, bottom first, as overlayfs would mount it: whiteouts hide, directories that
// are not opaque merge, implied directories have the attributes of the nearest one below that is not. It is evaluated where
// it is looked at, a directory at a time, and remembered. Hard links stay such while both names come from the same layer and
// the first one shows. Concurrency is that of the layers; they must outlive the view.
func View(layers ...Tree) Tree {
	if len(layers) == 0 {
		return Empty()
	}
	// A view has no whiteouts, so one at the bottom can be taken apart. Anywhere else its whiteouts still count.
	if v, ok := layers[0].(*view); ok {
		layers = slices.Concat(v.layers, layers[1:])
	}
	return &view{layers: layers, dirs: map[string][]merged{}}
}

type view struct {
	layers []Tree

	mu   sync.Mutex
	dirs map[string][]merged // by path; guarded by mu, the slices are immutable
	held int                 // entries in dirs; guarded by mu
	top  *merged             // the root, once known; guarded by mu
}

// merged is a name in the view.
type merged struct {
	Entry       // hard links as in the layer; see [view.shown]
	layer int   // where its content is
	dirs  []int // of a directory: the layers whose children show, top first

	shut   bool // while merging: nothing below shows
	faint  bool // while merging: attributes still wanted from below
	hidden bool // while merging: a whiteout
}

func (v *view) Stat(ctx context.Context, path string) (Entry, error) {
	m, err := v.lookup(ctx, path)
	if err != nil {
		return Entry{}, viewError("stat", path, err)
	}
	return v.shown(ctx, m)
}

func (v *view) ReadDir(ctx context.Context, path string) ([]Entry, error) {
	m, err := v.lookup(ctx, path)
	if err != nil {
		return nil, viewError("readdir", path, err)
	}
	if !m.IsDir() {
		return nil, pathError("readdir", path, ErrNotDir)
	}
	ms, err := v.list(ctx, m)
	if err != nil {
		return nil, err
	}
	es := make([]Entry, len(ms))
	for i, m := range ms {
		if es[i], err = v.shown(ctx, m); err != nil {
			return nil, err
		}
	}
	return es, nil
}

func (v *view) Open(ctx context.Context, path string) (Content, error) {
	m, err := v.lookup(ctx, path)
	if err != nil {
		return nil, viewError("open", path, err)
	}
	if !m.IsRegular() {
		return nil, pathError("open", path, ErrNotRegular)
	}
	return v.layers[m.layer].Open(ctx, path)
}

// FileDigest implements [Digester] for layers that do.
func (v *view) FileDigest(ctx context.Context, path string) (digest.Digest, bool, error) {
	m, err := v.lookup(ctx, path)
	if err != nil {
		return "", false, viewError("digest", path, err)
	}
	if d, ok := v.layers[m.layer].(Digester); ok && m.IsRegular() {
		return d.FileDigest(ctx, path)
	}
	return "", false, nil
}

// shown is m as the view shows it: a hard link only if its first name is the same file here.
func (v *view) shown(ctx context.Context, m merged) (Entry, error) {
	e := m.Entry
	if e.Hardlink == "" {
		return e, nil
	}
	first, err := v.lookup(ctx, e.Hardlink)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Entry{}, err
	}
	if err != nil || first.layer != m.layer || first.IsDir() {
		e.Hardlink = ""
	}
	return e, nil
}

func (v *view) lookup(ctx context.Context, path string) (merged, error) {
	if path == "" {
		return v.root(ctx)
	}
	dir, err := v.lookup(ctx, parent(path))
	if err != nil {
		return merged{}, err
	}
	if !dir.IsDir() {
		return merged{}, fs.ErrNotExist
	}
	ms, err := v.list(ctx, dir)
	if err != nil {
		return merged{}, err
	}
	i, ok := slices.BinarySearchFunc(ms, base(path), func(m merged, name string) int {
		return strings.Compare(m.Name(), name)
	})
	if !ok {
		return merged{}, fs.ErrNotExist
	}
	return ms[i], nil
}

func (v *view) root(ctx context.Context) (merged, error) {
	v.mu.Lock()
	top := v.top
	v.mu.Unlock()
	if top != nil {
		return *top, nil
	}
	var m merged
	for i, t := range slices.Backward(v.layers) {
		e, err := t.Stat(ctx, "")
		if err != nil {
			return merged{}, err
		}
		if m.dirs == nil {
			m = start(e, i)
		} else {
			m.under(e, i)
		}
		if m.done() {
			break
		}
	}
	m.Opaque = false
	v.mu.Lock()
	v.top = &m
	v.mu.Unlock()
	return m, nil
}

// list returns the children of the directory m.
func (v *view) list(ctx context.Context, m merged) ([]merged, error) {
	v.mu.Lock()
	ms, ok := v.dirs[m.Path]
	v.mu.Unlock()
	if ok {
		return ms, nil
	}
	// Two that ask at once may both do the work: it is short, and neither can make the other fail by giving up.
	ms, err := v.merge(ctx, m)
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.held += len(ms) + 1; v.held > viewCache {
		clear(v.dirs)
		v.held = len(ms) + 1
	}
	v.dirs[m.Path] = ms
	return ms, nil
}

func (v *view) merge(ctx context.Context, m merged) ([]merged, error) {
	var ms []merged
	at := map[string]int{}
	for n, i := range m.dirs {
		es, err := v.layers[i].ReadDir(ctx, m.Path)
		if err != nil {
			return nil, err
		}
		ms = slices.Grow(ms, len(es))
		for _, e := range es {
			if n > 0 { // a layer has a name once
				if j, ok := at[e.Name()]; ok {
					ms[j].under(e, i)
					continue
				}
			}
			if n < len(m.dirs)-1 {
				at[e.Name()] = len(ms)
			}
			ms = append(ms, start(e, i))
		}
	}
	ms = slices.DeleteFunc(ms, func(m merged) bool { return m.hidden })
	for i := range ms {
		ms[i].Opaque = false
	}
	if len(m.dirs) > 1 {
		slices.SortFunc(ms, func(a, b merged) int { return strings.Compare(a.Path, b.Path) })
	}
	return ms, nil
}

// start is a name whose topmost entry is e, in layer i.
func start(e Entry, i int) merged {
	m := merged{Entry: e, layer: i, hidden: e.Whiteout, shut: !e.IsDir() || e.Opaque}
	if e.IsDir() {
		m.dirs, m.faint = []int{i}, e.Implied
	}
	return m
}

// under takes note of the same name further down, in layer i.
func (m *merged) under(e Entry, i int) {
	if m.done() {
		return
	}
	if !e.IsDir() {
		m.shut, m.faint = true, false
		return
	}
	if m.faint && !e.Implied {
		path := m.Path
		m.Entry, m.faint = e, false
		m.Path = path
	}
	if !m.shut {
		m.dirs = append(m.dirs, i)
		m.shut = e.Opaque
	}
}

func (m *merged) done() bool { return m.shut && !m.faint }

// viewError adds the path to an error that came without.
func viewError(op, path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return notExist(op, path)
	}
	return err
}

func impliedRoot() Entry { return Entry{Mode: ModeDir | 0o755, ModTime: epoch, Implied: true} }
