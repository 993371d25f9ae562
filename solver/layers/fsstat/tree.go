package fsstat

import (
	"context"
	"fmt"
	"io"

	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"
)

// Tree shows a stack's tree as file sync sends it: in walk order, without whiteouts.
type Tree struct{ t fstree.Tree }

// NewTree wraps a tree, which must stay valid as long as the result is used.
func NewTree(t fstree.Tree) Tree { return Tree{t} }

// Walk calls f with every entry below the root in walk order. The Stat becomes f's.
func (t Tree) Walk(ctx context.Context, f func(*types.Stat) error) error {
	return t.walk(ctx, "", map[string]struct{}{}, f)
}

// walk sends one directory. A hard link whose first name sorts behind it here would be refused; stacks list the first name
// first, in walk order, and files remembers those that were sent.
func (t Tree) walk(ctx context.Context, dir string, files map[string]struct{}, f func(*types.Stat) error) error {
	entries, err := t.t.ReadDir(ctx, dir)
	if err != nil {
		return fmt.Errorf("read directory %q: %w", "/"+dir, err)
	}
	for _, e := range entries {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if e.Whiteout {
			continue
		}
		if e.Hardlink != "" {
			if _, ok := files[e.Hardlink]; !ok {
				e.Hardlink = "" // its first name is not in this tree: it goes as a file of its own
			}
		}
		if e.Hardlink == "" && e.Mode&unix.S_IFMT != unix.S_IFDIR && e.Mode&unix.S_IFMT != unix.S_IFLNK {
			files[e.Path] = struct{}{}
		}
		if err := f(Stat(e)); err != nil {
			return err
		}
		if e.Mode&unix.S_IFMT == unix.S_IFDIR {
			if err := t.walk(ctx, e.Path, files, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// Open opens a regular file that Walk gave.
func (t Tree) Open(ctx context.Context, path string) (io.ReadCloser, error) {
	c, err := t.t.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(c, 0, c.Size()), c}, nil
}
