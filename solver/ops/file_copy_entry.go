package ops

import (
	"context"
	"io/fs"
	"time"

	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"golang.org/x/sys/unix"
)

// put makes target as from is, with what the action changes about it.
func (c *copier) put(ctx context.Context, from fstree.Entry, target string) error {
	e := c.entry(from, target)
	var open fstree.OpenFunc
	if e.IsRegular() {
		if from.IsRegular() {
			open = fstree.FromTree(c.src, from.Path)
		} else {
			open = fstree.Bytes(nil)
		}
	}
	return c.dst.Put(ctx, e, open)
}

func (c *copier) entry(from fstree.Entry, target string) fstree.Entry {
	e := from
	e.Path, e.Hardlink, e.Opaque, e.Implied = target, "", false, false
	e.ModTime = c.timeOf(from)
	if c.who != nil {
		e.UID, e.GID = c.who.uid, c.who.gid
	}
	if e.Mode&unix.S_IFMT == unix.S_IFSOCK {
		// A socket is of no use without who listens on it, and has no place in a layer: an empty file stands for it.
		e.Mode = unix.S_IFREG | e.Mode&0o7777
		e.Size = 0
	}
	if !e.IsSymlink() {
		switch {
		case c.modeSet != nil:
			e.Mode = e.Mode&unix.S_IFMT | unixPerm(c.modeSet.Apply(goMode(e.Mode)))
		case c.mode != nil:
			e.Mode = e.Mode&unix.S_IFMT | *c.mode
		}
	}
	return e
}

func (c *copier) timeOf(from fstree.Entry) time.Time {
	if c.time != nil {
		return *c.time
	}
	return from.ModTime
}

// unixPerm is the lower twelve bits of a mode.
func unixPerm(m fs.FileMode) uint32 {
	p := uint32(m.Perm())
	if m&fs.ModeSetuid != 0 {
		p |= unix.S_ISUID
	}
	if m&fs.ModeSetgid != 0 {
		p |= unix.S_ISGID
	}
	if m&fs.ModeSticky != 0 {
		p |= unix.S_ISVTX
	}
	return p
}
