package fstree

import (
	"context"
	"io"
	"maps"
	"slices"
)

// Changes yields what was changed: what was made, whiteouts for what is gone from the base, and every directory on the way
// there with the attributes it has, so that they show when the layers are mounted on each other. The root is there only if it
// was put, or is not 0755 of 0:0. There must be no changes while it is read.
func (d *Delta) Changes() Source {
	return &changes{d: d, stack: []pending{{c: d.root}}}
}

type changes struct {
	d     *Delta
	stack []pending // what is to come, next on top
}

type pending struct {
	path string
	c    *change
}

func (s *changes) Next(ctx context.Context) (Entry, func(context.Context) (io.ReadCloser, error), error) {
	s.d.mu.RLock()
	defer s.d.mu.RUnlock()
	for len(s.stack) > 0 {
		if err := ctx.Err(); err != nil {
			return Entry{}, nil, err
		}
		p := s.stack[len(s.stack)-1]
		s.stack = s.stack[:len(s.stack)-1]
		if p.c.state == touched && !p.c.any() {
			continue
		}
		names := slices.Sorted(maps.Keys(p.c.kids))
		for _, name := range slices.Backward(names) {
			s.stack = append(s.stack, pending{join(p.path, name), p.c.kids[name]})
		}
		switch p.c.state {
		case gone:
			return Entry{Path: p.path, Whiteout: true}, nil, nil
		case touched:
			e, err := s.d.base.Stat(ctx, p.path)
			if err != nil {
				return Entry{}, nil, err
			}
			if p.path == "" && plainRoot(&e) {
				continue
			}
			e.Implied, e.Opaque = false, false
			return e, nil, nil
		}
		e := p.c.file.entry(p.path)
		e.Opaque = p.c.hides
		if e.IsRegular() && e.Hardlink == "" {
			return e, sourceOpen(p.c.file.open), nil
		}
		return e, nil, nil
	}
	return Entry{}, nil, io.EOF
}

// any says whether there is a change at or below c.
func (c *change) any() bool {
	if c.state != touched {
		return true
	}
	for _, k := range c.kids {
		if k.any() {
			return true
		}
	}
	return false
}

// plainRoot says whether e is what a root is that nobody made.
func plainRoot(e *Entry) bool {
	return e.Implied || e.Mode == ModeDir|0o755 && e.UID == 0 && e.GID == 0 && len(e.Xattrs) == 0
}

// IsEmpty says whether there are no changes.
func (d *Delta) IsEmpty() bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return !d.root.any()
}
