package fstree

import (
	"context"
	"io"
)

// NewSource yields everything in t in the order a [Source] promises. The root comes along only if it is more than implied.
// Where the first name of a hard link sorts after another one, the names change places.
func NewSource(t Tree) Source {
	return &treeSource{t: t, moved: map[string]string{}}
}

type treeSource struct {
	t       Tree
	started bool
	stack   [][]Entry // what is still to come of each directory down to here
	// moved maps a hard link's first name in t to the name that came first here.
	moved map[string]string
}

func (s *treeSource) Next(ctx context.Context) (Entry, func(context.Context) (io.ReadCloser, error), error) {
	e, err := s.step(ctx)
	if err != nil {
		return Entry{}, nil, err
	}
	if to, ok := s.moved[e.Path]; ok && e.Hardlink == "" {
		e.Hardlink = to
	} else if e.Hardlink != "" {
		if to, ok := s.moved[e.Hardlink]; ok {
			e.Hardlink = to
		} else if Compare(e.Hardlink, e.Path) > 0 {
			s.moved[e.Hardlink] = e.Path
			e.Hardlink = ""
		}
	}
	if !e.IsRegular() || e.Hardlink != "" {
		return e, nil, nil
	}
	return e, sourceOpen(FromTree(s.t, e.Path)), nil
}

// step is the next entry as it stands in the tree.
func (s *treeSource) step(ctx context.Context) (Entry, error) {
	if err := ctx.Err(); err != nil {
		return Entry{}, err
	}
	if !s.started {
		root, err := s.t.Stat(ctx, "")
		if err != nil {
			return Entry{}, err
		}
		if err := s.enter(ctx, root); err != nil {
			return Entry{}, err
		}
		s.started = true
		if !root.Implied || root.Opaque {
			return root, nil
		}
	}
	for len(s.stack) > 0 {
		top := &s.stack[len(s.stack)-1]
		if len(*top) == 0 {
			s.stack = s.stack[:len(s.stack)-1]
			continue
		}
		e := (*top)[0]
		*top = (*top)[1:]
		return e, s.enter(ctx, e)
	}
	return Entry{}, io.EOF
}

func (s *treeSource) enter(ctx context.Context, e Entry) error {
	if !e.IsDir() {
		return nil
	}
	es, err := s.t.ReadDir(ctx, e.Path)
	if err != nil {
		return err
	}
	s.stack = append(s.stack, es)
	return nil
}
