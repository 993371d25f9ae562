package ops

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"golang.org/x/sys/unix"
)

// treeDiff makes a tree like another one.
type treeDiff struct {
	from, to fstree.Tree
	delta    *fstree.Delta
	links    map[string][]string // further names of files in to, by the first one
	put      map[string]bool     // files that are part of the changes
	changes  int                 // how many there were so far
}

// dir compares a directory that both have.
func (c *treeDiff) dir(ctx context.Context, p string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	old, err := c.from.ReadDir(ctx, p)
	if err != nil {
		return err
	}
	now, err := c.to.ReadDir(ctx, p)
	if err != nil {
		return err
	}
	for len(old) > 0 || len(now) > 0 {
		switch {
		case len(now) == 0 || len(old) > 0 && strings.Compare(old[0].Name(), now[0].Name()) < 0:
			c.changes++
			if err := c.delta.RemoveAll(ctx, old[0].Path); err != nil {
				return err
			}
			old = old[1:]
		case len(old) == 0 || strings.Compare(now[0].Name(), old[0].Name()) < 0:
			if err := c.add(ctx, now[0]); err != nil {
				return err
			}
			now = now[1:]
		default:
			if err := c.change(ctx, old[0], now[0]); err != nil {
				return err
			}
			old, now = old[1:], now[1:]
		}
	}
	return nil
}

// change makes b of a, which have the same path.
func (c *treeDiff) change(ctx context.Context, a, b fstree.Entry) error {
	if a.IsDir() && b.IsDir() {
		before := c.changes
		if err := c.dir(ctx, b.Path); err != nil {
			return err
		}
		// A time alone is no change: it is there when something inside came and went.
		old := a
		old.ModTime = b.ModTime
		if sameAttributes(old, b) && (c.changes == before || a.ModTime.Equal(b.ModTime)) {
			return nil
		}
		c.changes++
		return c.delta.Put(ctx, plain(b), nil)
	}
	c.note(b)
	if sameAttributes(a, b) {
		same, err := c.sameContent(ctx, a, b)
		if err != nil || same {
			return err
		}
	}
	if err := c.delta.RemoveAll(ctx, b.Path); err != nil {
		return err
	}
	return c.add(ctx, b)
}

// add puts what only the new tree has.
func (c *treeDiff) add(ctx context.Context, root fstree.Entry) error {
	c.changes++
	return fstree.Walk(ctx, c.to, root.Path, func(e fstree.Entry) error {
		c.note(e)
		var open fstree.OpenFunc
		if e.IsRegular() {
			open = fstree.FromTree(c.to, e.Path)
			c.put[e.Path] = true
		}
		return c.delta.Put(ctx, plain(e), open)
	})
}

// note remembers hard links.
func (c *treeDiff) note(e fstree.Entry) {
	if e.Hardlink != "" {
		c.links[e.Hardlink] = append(c.links[e.Hardlink], e.Path)
	}
}

// relink makes the names of one file one file again. A layer cannot link to what is in another, so where one name is part of
// the changes, all are.
func (c *treeDiff) relink(ctx context.Context) error {
	for _, first := range slices.SortedFunc(maps.Keys(c.links), fstree.Compare) {
		names := c.links[first]
		if !c.put[first] && !slices.ContainsFunc(names, func(n string) bool { return c.put[n] }) {
			continue
		}
		for _, n := range names {
			if err := c.delta.Link(ctx, first, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// plain is an entry as it stands for itself, whatever layer it was in.
func plain(e fstree.Entry) fstree.Entry {
	e.Hardlink, e.Opaque, e.Implied = "", false, false
	return e
}

func sameAttributes(a, b fstree.Entry) bool {
	return a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID && a.ModTime.Equal(b.ModTime) &&
		a.Linkname == b.Linkname && a.Major == b.Major && a.Minor == b.Minor &&
		(a.Mode&unix.S_IFMT != unix.S_IFREG || a.Size == b.Size) && maps.Equal(a.Xattrs, b.Xattrs)
}

// sameContent compares bytes, by digests where they are known.
func (c *treeDiff) sameContent(ctx context.Context, a, b fstree.Entry) (bool, error) {
	if !a.IsRegular() {
		return true, nil
	}
	if (a.Hardlink == "") != (b.Hardlink == "") || a.Hardlink != b.Hardlink {
		return false, nil
	}
	if da, ok := c.from.(fstree.Digester); ok {
		if db, ok := c.to.(fstree.Digester); ok {
			x, okX, err := da.FileDigest(ctx, a.Path)
			if err != nil {
				return false, err
			}
			y, okY, err := db.FileDigest(ctx, b.Path)
			if err != nil {
				return false, err
			}
			if okX && okY {
				return x == y, nil
			}
		}
	}
	x, err := c.from.Open(ctx, a.Path)
	if err != nil {
		return false, err
	}
	defer func() { _ = x.Close() }() // only read from
	y, err := c.to.Open(ctx, b.Path)
	if err != nil {
		return false, err
	}
	defer func() { _ = y.Close() }() // only read from
	return sameBytes(ctx, fstree.NewReader(x), fstree.NewReader(y))
}

func sameBytes(ctx context.Context, a, b io.Reader) (bool, error) {
	bufA, bufB := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		if err := context.Cause(ctx); err != nil {
			return false, err
		}
		n, errA := io.ReadFull(a, bufA)
		m, errB := io.ReadFull(b, bufB)
		if !bytes.Equal(bufA[:n], bufB[:m]) {
			return false, nil
		}
		endA, endB := ended(errA), ended(errB)
		switch {
		case errA != nil && !endA:
			return false, errA
		case errB != nil && !endB:
			return false, errB
		case endA && endB:
			return true, nil
		case endA != endB:
			return false, nil
		}
	}
}

func ended(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
