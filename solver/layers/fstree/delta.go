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

// Delta is a tree in the making: a base and what was changed of it. As a [Tree] it shows both merged; [Delta.Changes] yields
// what was changed, as the layer that has to be put on top of the base.
//
// Paths are resolved ones: no method follows a symlink, a parent must be a directory. Contents are kept as the functions that
// open them. Entries and their Xattrs maps must not change once passed in. All methods are safe for concurrent use, but each
// is an operation of its own.
type Delta struct {
	base Tree

	mu   sync.RWMutex
	root *change // guarded by mu, with all below
}

// A change is what is known of a name beyond the base.
type change struct {
	state state
	// cut says, of a made directory, that nothing of the base shows inside; hides that the base has a directory there to be
	// hidden. The second implies the first.
	cut, hides bool
	file       *changed
	kids       map[string]*change
}

type state int

const (
	touched state = iota // the base's directory, with changes inside
	made
	gone // a name of the base that does not show any more
)

// changed is what is at a name, shared by hard links.
type changed struct {
	Entry // without Path and Hardlink
	open  OpenFunc
	names []string
}

// NewDelta begins with no changes to base, which must not have whiteouts: the view of a stack, or [Empty].
func NewDelta(base Tree) *Delta {
	return &Delta{base: base, root: &change{}}
}

// at is where in a Delta a path leads.
type at struct {
	c    *change // nil if nothing was changed there
	base bool    // what the base has at the path shows, or would if it were not changed
}

// find goes down to path as far as there are changes.
func (d *Delta) find(path string) (at, error) {
	a := at{c: d.root, base: true}
	for rest := path; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		if a.c == nil {
			return a, nil // all base from here on
		}
		switch {
		case a.c.state == gone, a.c.state == made && !a.c.file.IsDir():
			return at{}, fs.ErrNotExist
		case a.c.state == made && a.c.cut:
			a.base = false
		}
		if a.c = a.c.kids[name]; a.c == nil && !a.base {
			return at{}, fs.ErrNotExist
		}
	}
	return a, nil
}

// stat is Stat without the lock.
func (d *Delta) stat(ctx context.Context, path string) (Entry, at, error) {
	a, err := d.find(path)
	if err != nil {
		return Entry{}, at{}, notExist("stat", path)
	}
	switch {
	case a.c == nil || a.c.state == touched:
		e, err := d.base.Stat(ctx, path)
		if err != nil {
			return Entry{}, at{}, err
		}
		return d.fromBase(e), a, nil
	case a.c.state == gone:
		return Entry{}, at{}, notExist("stat", path)
	}
	return a.c.file.entry(path), a, nil
}

// entry is f as it shows at path.
func (f *changed) entry(path string) Entry {
	e := f.Entry
	e.Path = path
	if len(f.names) > 1 {
		if first := slices.MinFunc(f.names, Compare); first != path {
			e.Hardlink = first
		}
	}
	return e
}

// fromBase is what shows of the base's entry e: a hard link to what has changed is a file of its own.
func (d *Delta) fromBase(e Entry) Entry {
	if e.Hardlink == "" {
		return e
	}
	if a, err := d.find(e.Hardlink); err != nil || a.c != nil {
		e.Hardlink = ""
	}
	return e
}

// Stat implements [Tree].
func (d *Delta) Stat(ctx context.Context, path string) (Entry, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	e, _, err := d.stat(ctx, path)
	return e, err
}

// ReadDir implements [Tree].
func (d *Delta) ReadDir(ctx context.Context, path string) ([]Entry, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	e, a, err := d.stat(ctx, path)
	if err != nil {
		return nil, err
	}
	if !e.IsDir() {
		return nil, pathError("readdir", path, ErrNotDir)
	}
	var es []Entry
	if a.c == nil || !a.c.cut {
		all, err := d.base.ReadDir(ctx, path)
		if err != nil {
			return nil, err
		}
		for _, e := range all {
			if a.c != nil {
				if k := a.c.kids[e.Name()]; k != nil && k.state != touched {
					continue
				}
			}
			es = append(es, d.fromBase(e))
		}
	}
	if a.c == nil {
		return es, nil
	}
	for name, k := range a.c.kids {
		if k.state == made {
			es = append(es, k.file.entry(join(path, name)))
		}
	}
	slices.SortFunc(es, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	return es, nil
}

// Open implements [Tree].
func (d *Delta) Open(ctx context.Context, path string) (Content, error) {
	d.mu.RLock()
	e, a, err := d.stat(ctx, path)
	d.mu.RUnlock()
	if err != nil {
		return nil, err
	}
	if !e.IsRegular() {
		return nil, pathError("open", path, ErrNotRegular)
	}
	if a.c == nil || a.c.state == touched {
		return d.base.Open(ctx, path)
	}
	return a.c.file.open(ctx)
}

// FileDigest implements [Digester] for what the base has, where that does.
func (d *Delta) FileDigest(ctx context.Context, path string) (digest.Digest, bool, error) {
	d.mu.RLock()
	e, a, err := d.stat(ctx, path)
	d.mu.RUnlock()
	if err != nil {
		return "", false, err
	}
	if b, ok := d.base.(Digester); ok && e.IsRegular() && a.c == nil {
		return b.FileDigest(ctx, path)
	}
	return "", false, nil
}

func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
