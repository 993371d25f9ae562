package fstree

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// Difference is one name that two trees have differently.
type Difference struct {
	Path string
	// What says in which way, "content" or "mode 644, 600" (the first tree's value first); a few words each, at least one.
	What []string
}

// String is the difference on one line.
func (d Difference) String() string { return "/" + d.Path + ": " + strings.Join(d.What, "; ") }

// DifferenceOptions goes with [Differences].
type DifferenceOptions struct {
	// Latest is a time that all later ones are taken to be. The zero time is none.
	Latest time.Time
}

// Differences calls found for every name that is not the same in both trees, in the order of [Walk]. Below a directory that only one
// tree has, nothing is listed. An error of found ends it and is returned.
func Differences(ctx context.Context, a, b Tree, o DifferenceOptions, found func(Difference) error) error {
	c := comparison{a: a, b: b, o: o, found: found}
	x, err := a.Stat(ctx, "")
	if err != nil {
		return err
	}
	y, err := b.Stat(ctx, "")
	if err != nil {
		return err
	}
	return c.entries(ctx, x, y)
}

type comparison struct {
	a, b  Tree
	o     DifferenceOptions
	found func(Difference) error
}

// entries compares what both trees have at one path, and what is below it.
func (c *comparison) entries(ctx context.Context, x, y Entry) error {
	what := c.attributes(x, y)
	if x.IsRegular() && y.IsRegular() && x.Hardlink == "" && y.Hardlink == "" && x.Size == y.Size {
		same, err := c.sameContent(ctx, x.Path)
		if err != nil {
			return err
		}
		if !same {
			what = append(what, "content")
		}
	}
	if len(what) > 0 {
		if err := c.found(Difference{Path: x.Path, What: what}); err != nil {
			return err
		}
	}
	if x.IsDir() && y.IsDir() {
		return c.children(ctx, x.Path)
	}
	return nil
}

func (c *comparison) children(ctx context.Context, dir string) error {
	xs, err := c.a.ReadDir(ctx, dir)
	if err != nil {
		return err
	}
	ys, err := c.b.ReadDir(ctx, dir)
	if err != nil {
		return err
	}
	for len(xs) > 0 || len(ys) > 0 {
		switch {
		case len(ys) == 0 || len(xs) > 0 && xs[0].Path < ys[0].Path:
			err = c.found(Difference{Path: xs[0].Path, What: []string{"only in the first"}})
			xs = xs[1:]
		case len(xs) == 0 || ys[0].Path < xs[0].Path:
			err = c.found(Difference{Path: ys[0].Path, What: []string{"only in the second"}})
			ys = ys[1:]
		default:
			err = c.entries(ctx, xs[0], ys[0])
			xs, ys = xs[1:], ys[1:]
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// attributes compares all but contents.
func (c *comparison) attributes(x, y Entry) (what []string) {
	differ := func(name string, same bool, a, b any) {
		if !same {
			what = append(what, fmt.Sprintf("%s %v, %v", name, a, b))
		}
	}
	if x.Whiteout || y.Whiteout {
		differ("whiteout", x.Whiteout == y.Whiteout, x.Whiteout, y.Whiteout)
		return what
	}
	differ("opaque", x.Opaque == y.Opaque, x.Opaque, y.Opaque)
	if x.Implied && y.Implied {
		return what
	}
	differ("type", x.Mode&ModeType == y.Mode&ModeType, typeName(x.Mode), typeName(y.Mode))
	if x.Mode&ModeType != y.Mode&ModeType {
		return what
	}
	differ("mode", x.Mode == y.Mode, octal(x.Mode), octal(y.Mode))
	differ("owner", x.UID == y.UID && x.GID == y.GID, fmt.Sprintf("%d:%d", x.UID, x.GID), fmt.Sprintf("%d:%d", y.UID, y.GID))
	differ("size", x.Size == y.Size, x.Size, y.Size)
	xt, yt := c.time(x), c.time(y)
	differ("mtime", xt.Equal(yt), xt.Format(time.RFC3339Nano), yt.Format(time.RFC3339Nano))
	differ("link target", x.Linkname == y.Linkname, x.Linkname, y.Linkname)
	differ("hard link to", x.Hardlink == y.Hardlink, "/"+x.Hardlink, "/"+y.Hardlink)
	differ("device", x.Major == y.Major && x.Minor == y.Minor, fmt.Sprintf("%d:%d", x.Major, x.Minor), fmt.Sprintf("%d:%d", y.Major, y.Minor))
	if !maps.Equal(x.Xattrs, y.Xattrs) {
		what = append(what, "xattrs "+strings.Join(differentKeys(x.Xattrs, y.Xattrs), ", "))
	}
	return what
}

func (c *comparison) time(e Entry) time.Time {
	if !c.o.Latest.IsZero() && e.ModTime.After(c.o.Latest) {
		return c.o.Latest.UTC()
	}
	return e.ModTime.UTC()
}

// sameContent compares a file that is as long in both.
func (c *comparison) sameContent(ctx context.Context, path string) (bool, error) {
	x, err := c.a.Open(ctx, path)
	if err != nil {
		return false, err
	}
	defer func() { _ = x.Close() }() // only read from
	y, err := c.b.Open(ctx, path)
	if err != nil {
		return false, err
	}
	defer func() { _ = y.Close() }() // only read from
	const chunk = 64 << 10
	p, q := make([]byte, chunk), make([]byte, chunk)
	for at := int64(0); at < x.Size(); at += chunk {
		if err := ctx.Err(); err != nil {
			return false, context.Cause(ctx)
		}
		n := min(chunk, x.Size()-at)
		if _, err := io.ReadFull(io.NewSectionReader(x, at, n), p[:n]); err != nil {
			return false, pathError("read", path, err)
		}
		if _, err := io.ReadFull(io.NewSectionReader(y, at, n), q[:n]); err != nil {
			return false, pathError("read", path, err)
		}
		if !bytes.Equal(p[:n], q[:n]) {
			return false, nil
		}
	}
	return true, nil
}

func differentKeys(a, b map[string]string) (keys []string) {
	all := maps.Clone(a)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, b)
	for k := range all {
		x, inA := a[k]
		y, inB := b[k]
		if inA != inB || x != y {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

func octal(mode uint32) string { return fmt.Sprintf("%o", mode&^ModeType) }

func typeName(mode uint32) string {
	switch mode & ModeType {
	case ModeSocket:
		return "socket"
	case ModeSymlink:
		return "symlink"
	case ModeRegular:
		return "file"
	case ModeBlock:
		return "block device"
	case ModeDir:
		return "directory"
	case ModeChar:
		return "character device"
	case ModeFifo:
		return "fifo"
	}
	return "unknown"
}
