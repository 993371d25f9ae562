package fstree

import (
	"context"
	"errors"
	"io/fs"
	"strings"
)

// maxLinks is how many symlinks the kernel follows in one path.
const maxLinks = 40

// Resolve returns the path of what p names when the root of t is the root directory: absolute, relative and unclean paths are
// taken, symlinks are followed as the kernel would after chroot, ".." at the root is the root. The last component is followed
// only with followLast. The errors are fs.ErrNotExist, [ErrNotDir] and [ErrLoop], in an [fs.PathError] with p.
func Resolve(ctx context.Context, t Tree, p string, followLast bool) (string, error) {
	r := resolver{t: t, follow: followLast}
	return r.run(ctx, p)
}

// ResolveMissing is [Resolve] for the path of something about to be made: it stops looking at the first component that does
// not exist and takes the rest as it stands. A dangling symlink leads to where it points.
func ResolveMissing(ctx context.Context, t Tree, p string, followLast bool) (string, error) {
	r := resolver{t: t, follow: followLast, missing: true}
	return r.run(ctx, p)
}

type resolver struct {
	t               Tree
	follow, missing bool
}

func (r *resolver) run(ctx context.Context, p string) (string, error) {
	var (
		cur   string // resolved so far, a directory or, once gone is set, nothing
		todo  = components(nil, p)
		dir   = strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.")
		links int
		depth int // components of cur that do not exist
	)
	for len(todo) > 0 {
		name := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if name == ".." {
			cur, depth = parent(cur), max(0, depth-1)
			continue
		}
		next := join(cur, name)
		if depth > 0 {
			cur, depth = next, depth+1
			continue
		}
		e, err := r.t.Stat(ctx, next)
		if errors.Is(err, fs.ErrNotExist) && r.missing {
			cur, depth = next, 1
			continue
		}
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				err = fs.ErrNotExist
			}
			return "", pathError("resolve", p, err)
		}
		last := len(todo) == 0
		switch {
		case e.IsSymlink() && (!last || r.follow || dir):
			if links++; links > maxLinks {
				return "", pathError("resolve", p, ErrLoop)
			}
			if strings.HasPrefix(e.Linkname, "/") {
				cur = ""
			}
			dir = dir || last && strings.HasSuffix(e.Linkname, "/")
			todo = components(todo, e.Linkname)
		case !e.IsDir() && (!last || dir):
			return "", pathError("resolve", p, ErrNotDir)
		default:
			cur = next
		}
	}
	return cur, nil
}

// components puts the components of p on the stack todo, the first on top.
func components(todo []string, p string) []string {
	start := len(todo)
	for c := range strings.SplitSeq(p, "/") {
		if c != "" && c != "." {
			todo = append(todo, c)
		}
	}
	for i, j := start, len(todo)-1; i < j; i, j = i+1, j-1 {
		todo[i], todo[j] = todo[j], todo[i]
	}
	return todo
}
