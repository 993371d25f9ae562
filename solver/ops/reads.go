package ops

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"github.com/slipwaybuild/slipway/solver/progress"
	fstypes "github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"
)

// maxRead bounds what one ReadFile returns, in bytes: it must fit a message, and a frontend has no business with more.
const maxRead = 512 << 20

// Evaluate brings the bytes of every lazy layer of ref. A nil ref is the empty stack; p may be nil.
func (f *Factory) Evaluate(ctx context.Context, ref *layers.Ref, sessions func() *session.Group, p progress.Writer) error {
	return f.fetch(ctx, ref, sessions, p)
}

// ReadFile reads a file, or a range of it, following symlinks inside the root. A missing file is os.ErrNotExist.
func (f *Factory) ReadFile(ctx context.Context, ref *layers.Ref, sessions func() *session.Group, req gwclient.ReadRequest) ([]byte, error) {
	if err := f.fetchToRead(ctx, ref, sessions, nil); err != nil {
		return nil, err
	}
	return f.readFile(ctx, ref, req, maxRead)
}

// readFile reads at most limit bytes of a local stack's file; more is an error.
func (f *Factory) readFile(ctx context.Context, ref *layers.Ref, req gwclient.ReadRequest, limit int64) ([]byte, error) {
	tree, err := f.tree(ctx, ref)
	if err != nil {
		return nil, err
	}
	p, err := fstree.Resolve(ctx, tree, cleanRel(req.Filename), true)
	if err != nil {
		return nil, pathError("open", req.Filename, err)
	}
	e, err := tree.Stat(ctx, p)
	if err != nil {
		return nil, pathError("open", req.Filename, err)
	}
	if e.Mode&unix.S_IFMT == unix.S_IFDIR {
		return nil, pathError("read", req.Filename, unix.EISDIR)
	}
	if e.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, pathError("read", req.Filename, errors.New("not a regular file"))
	}
	c, err := tree.Open(ctx, p)
	if err != nil {
		return nil, pathError("open", req.Filename, err)
	}
	defer func() { _ = c.Close() }() // nothing was written
	off, n := int64(0), c.Size()
	if r := req.Range; r != nil {
		off = min(max(int64(r.Offset), 0), n)
		n -= off
		if r.Length > 0 {
			n = min(n, int64(r.Length))
		}
	}
	if n > limit {
		return nil, pathError("read", req.Filename, fmt.Errorf("%d bytes, the limit is %d", n, limit))
	}
	dt := make([]byte, n)
	if _, err := io.ReadFull(io.NewSectionReader(c, off, n), dt); err != nil {
		return nil, pathError("read", req.Filename, err)
	}
	return dt, nil
}

// StatFile describes a file, following symlinks inside the root except a final one. A missing file is os.ErrNotExist.
func (f *Factory) StatFile(ctx context.Context, ref *layers.Ref, sessions func() *session.Group, req gwclient.StatRequest) (*fstypes.Stat, error) {
	if err := f.fetchToRead(ctx, ref, sessions, nil); err != nil {
		return nil, err
	}
	tree, err := f.tree(ctx, ref)
	if err != nil {
		return nil, err
	}
	p, err := fstree.Resolve(ctx, tree, cleanRel(req.Path), false)
	if err != nil {
		return nil, pathError("lstat", req.Path, err)
	}
	e, err := tree.Stat(ctx, p)
	if err != nil {
		return nil, pathError("lstat", req.Path, err)
	}
	return statOf(e), nil
}

// ReadDir lists a directory, following symlinks inside the root. A missing directory is os.ErrNotExist.
func (f *Factory) ReadDir(ctx context.Context, ref *layers.Ref, sessions func() *session.Group, req gwclient.ReadDirRequest) ([]*fstypes.Stat, error) {
	if err := f.fetchToRead(ctx, ref, sessions, nil); err != nil {
		return nil, err
	}
	tree, err := f.tree(ctx, ref)
	if err != nil {
		return nil, err
	}
	p, err := fstree.Resolve(ctx, tree, cleanRel(req.Path), true)
	if err != nil {
		return nil, pathError("open", req.Path, err)
	}
	entries, err := tree.ReadDir(ctx, p)
	if err != nil {
		return nil, pathError("readdir", req.Path, err)
	}
	return listed(entries, req.IncludePattern)
}

// listed are the entries whose names match a pattern, all for none.
func listed(entries []fstree.Entry, pattern string) ([]*fstypes.Stat, error) {
	var out []*fstypes.Stat
	for _, e := range entries {
		if pattern != "" {
			ok, err := path.Match(pattern, path.Base(e.Path))
			if err != nil {
				return nil, fmt.Errorf("include pattern %q: %w", pattern, err)
			}
			if !ok {
				continue
			}
		}
		out = append(out, statOf(e))
	}
	return out, nil
}

// pathError names the path as it was asked for. A missing file says "no such file or directory", which clients look for.
func pathError(op, p string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		err = unix.ENOENT
	}
	return &os.PathError{Op: op, Path: p, Err: err}
}

// statOf is an entry in the form frontends know: Go's mode bits, the base name as path.
func statOf(e fstree.Entry) *fstypes.Stat {
	s := &fstypes.Stat{
		Path:     path.Base("/" + e.Path),
		Mode:     uint32(goMode(e.Mode)),
		Uid:      e.UID,
		Gid:      e.GID,
		ModTime:  e.ModTime.UnixNano(),
		Linkname: e.Linkname,
		Devmajor: int64(e.Major),
		Devminor: int64(e.Minor),
	}
	switch e.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		s.Size = e.Size
	case unix.S_IFLNK:
		s.Size = int64(len(e.Linkname))
	}
	if len(e.Xattrs) > 0 {
		s.Xattrs = map[string][]byte{}
		for k, v := range e.Xattrs {
			s.Xattrs[k] = []byte(v)
		}
	}
	return s
}

// goMode turns the bits of stat(2) into Go's.
func goMode(m uint32) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	switch m & unix.S_IFMT {
	case unix.S_IFDIR:
		mode |= fs.ModeDir
	case unix.S_IFLNK:
		mode |= fs.ModeSymlink
	case unix.S_IFIFO:
		mode |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		mode |= fs.ModeSocket
	case unix.S_IFBLK:
		mode |= fs.ModeDevice
	case unix.S_IFCHR:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	}
	if m&unix.S_ISUID != 0 {
		mode |= fs.ModeSetuid
	}
	if m&unix.S_ISGID != 0 {
		mode |= fs.ModeSetgid
	}
	if m&unix.S_ISVTX != 0 {
		mode |= fs.ModeSticky
	}
	return mode
}
