package ops

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/moby/buildkit/solver/pb"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"golang.org/x/sys/unix"
)

// entry is something new, owned by who, or by root if nobody is asked for.
func (r *fileRun) entry(p string, mode uint32, who *owner, timestamp int64) fstree.Entry {
	e := fstree.Entry{Path: p, Mode: mode, ModTime: r.timeOf(timestamp)}
	if who != nil {
		e.UID, e.GID = who.uid, who.gid
	}
	return e
}

// inherit gives something new the group of the directory it is made in, if that is setgid and nobody else was asked for: what
// a kernel does. It says whether the directory is setgid.
func inherit(ctx context.Context, d *fstree.Delta, e *fstree.Entry, who *owner) (bool, error) {
	dir, err := d.Stat(ctx, joinRel(path.Dir("/"+e.Path)))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // to be complained about by who makes it
	}
	if err != nil || dir.Mode&unix.S_ISGID == 0 {
		return false, err
	}
	if who == nil {
		e.GID = dir.GID
	}
	return true, nil
}

// mkdirAll makes the directory e and those missing above it, all alike.
func mkdirAll(ctx context.Context, d *fstree.Delta, e fstree.Entry, who *owner) error {
	first := e
	for first.Path != "" {
		up := joinRel(path.Dir("/" + first.Path))
		if _, err := d.Stat(ctx, up); err == nil {
			break
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		first.Path = up
	}
	if _, err := inherit(ctx, d, &first, who); err != nil {
		return err
	}
	if err := d.MkdirAll(ctx, first); err != nil {
		return err
	}
	return d.MkdirAll(ctx, e)
}

func (r *fileRun) mkdir(ctx context.Context, d *fstree.Delta, a *pb.FileActionMkDir, who *owner) error {
	p, err := fstree.ResolveMissing(ctx, d, a.Path, true)
	if err != nil {
		return pathError("mkdir", a.Path, err)
	}
	e := r.entry(p, unix.S_IFDIR|uint32(a.Mode)&0o777, who, a.Timestamp)
	if a.MakeParents {
		err = mkdirAll(ctx, d, e, who)
	} else {
		var setgid bool
		if setgid, err = inherit(ctx, d, &e, who); err == nil {
			if setgid {
				e.Mode |= unix.S_ISGID
			}
			err = d.Mkdir(ctx, e)
		}
		if errors.Is(err, fs.ErrExist) {
			err = nil // what is there stays as it is
		}
	}
	if err != nil {
		return pathError("mkdir", a.Path, err)
	}
	return nil
}

// mkfile replaces whatever the path leads to, except a directory. Symlinks are followed inside the root.
func (r *fileRun) mkfile(ctx context.Context, d *fstree.Delta, a *pb.FileActionMkFile, who *owner) error {
	p, err := fstree.ResolveMissing(ctx, d, a.Path, true)
	if err != nil {
		return pathError("mkfile", a.Path, err)
	}
	old, err := d.Stat(ctx, p)
	if err == nil && old.IsDir() {
		return pathError("mkfile", a.Path, unix.EISDIR)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return pathError("mkfile", a.Path, err)
	}
	e := r.entry(p, unix.S_IFREG|uint32(a.Mode)&0o777, who, a.Timestamp)
	e.Size = int64(len(a.Data))
	if _, err := inherit(ctx, d, &e, who); err != nil {
		return pathError("mkfile", a.Path, err)
	}
	if err := d.Put(ctx, e, fstree.Bytes(a.Data)); err != nil {
		return pathError("mkfile", a.Path, err)
	}
	return nil
}

func (r *fileRun) symlink(ctx context.Context, d *fstree.Delta, a *pb.FileActionSymlink, who *owner) error {
	p, err := fstree.ResolveMissing(ctx, d, a.Newpath, true)
	if err != nil {
		return pathError("symlink", a.Newpath, err)
	}
	if _, err := d.Stat(ctx, p); err == nil {
		return pathError("symlink", a.Newpath, unix.EEXIST)
	}
	e := r.entry(p, unix.S_IFLNK|0o777, who, a.Timestamp)
	e.Linkname = a.Oldpath
	if _, err := inherit(ctx, d, &e, who); err != nil {
		return pathError("symlink", a.Newpath, err)
	}
	if err := d.Put(ctx, e, nil); err != nil {
		return pathError("symlink", a.Newpath, err)
	}
	return nil
}

func (r *fileRun) rm(ctx context.Context, d *fstree.Delta, a *pb.FileActionRm) error {
	if !a.AllowWildcard {
		return rmPath(ctx, d, a.Path, a.AllowNotFound)
	}
	found, err := wildcards(ctx, d, a.Path, false)
	if err != nil {
		return pathError("remove", a.Path, err)
	}
	for _, p := range found {
		if err := rmPath(ctx, d, p, a.AllowNotFound); err != nil {
			return err
		}
	}
	return nil
}

// rmPath removes a name and what is inside. A symlink at the end is removed, not followed.
func rmPath(ctx context.Context, d *fstree.Delta, name string, missingOK bool) error {
	p := cleanRel(name)
	if p == "" {
		return fmt.Errorf("remove %q: the root cannot be removed", name)
	}
	dir, base := path.Split(p)
	dir, err := fstree.ResolveMissing(ctx, d, dir, true)
	if err != nil {
		return pathError("remove", name, err)
	}
	p = joinRel(dir, base)
	if _, err := d.Stat(ctx, p); err != nil && (!missingOK || !errors.Is(err, fs.ErrNotExist)) {
		return pathError("remove", name, err)
	}
	if err := d.RemoveAll(ctx, p); err != nil {
		return pathError("remove", name, err)
	}
	return nil
}
