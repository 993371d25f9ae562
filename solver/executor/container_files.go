package executor

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"golang.org/x/sys/unix"
)

// ErrNotRegular is what reading anything but a file meets.
var ErrNotRegular = errors.New("not a regular file")

// ReadFile reads at most length bytes of a file in mount i, numbered as in the spec, from an offset on. Symlinks are followed
// inside the mount. Nothing but a regular file is ever opened: a container may have put a fifo or a device there.
func (c *Container) ReadFile(i int, name string, offset, length int64) ([]byte, error) {
	var data []byte
	err := c.visit("read", i, name, func(at *place) error {
		st, err := at.stat()
		if err != nil {
			return err
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
		case unix.S_IFDIR:
			return unix.EISDIR
		default:
			return ErrNotRegular
		}
		f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", at.fd))
		if err != nil {
			return plain(err)
		}
		defer func() { _ = f.Close() }() // only read
		data, err = io.ReadAll(io.NewSectionReader(f, offset, length))
		return plain(err)
	})
	return data, err
}

// Stat describes a file in mount i, following symlinks inside the mount. A symlink that leads to nothing there, because it
// counts on another mount, is described itself. The entry's path is the base of name.
func (c *Container) Stat(i int, name string) (fstree.Entry, error) {
	var e fstree.Entry
	err := c.visit("stat", i, name, func(at *place) (err error) {
		e, err = entryAt(at.fd, "")
		return err
	})
	if errors.Is(err, fs.ErrNotExist) && path.Base(path.Clean("/"+name)) != "/" {
		missing := err
		err = c.visit("stat", i, path.Dir(path.Clean("/"+name)), func(at *place) (err error) {
			if e, err = entryAt(at.fd, path.Base(name)); err != nil || e.Linkname == "" {
				return missing
			}
			return nil
		})
	}
	e.Path = path.Base(path.Clean("/" + name))
	return e, err
}

// ReadDir describes the files of a directory in mount i, sorted by name, following symlinks to it inside the mount and none in it.
func (c *Container) ReadDir(i int, name string) ([]fstree.Entry, error) {
	var list []fstree.Entry
	err := c.visit("read directory", i, name, func(at *place) error {
		dir, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", at.fd), os.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
		if err != nil {
			return plain(err)
		}
		defer func() { _ = dir.Close() }() // only read
		names, err := dir.Readdirnames(-1)
		if err != nil {
			return plain(err)
		}
		slices.Sort(names)
		for _, n := range names {
			e, err := entryAt(at.fd, n)
			if errors.Is(err, fs.ErrNotExist) {
				continue // the container has just removed it
			}
			if err != nil {
				return err
			}
			list = append(list, e)
		}
		return nil
	})
	return list, err
}

// visit finds a file in a mount and holds the mount until do returns. Errors tell the name as it was asked for, and no path of
// the host.
func (c *Container) visit(op string, i int, name string, do func(*place) error) error {
	leave, err := c.enter()
	if err != nil {
		return err
	}
	defer leave()
	m, err := c.mount(i)
	if err != nil {
		return err
	}
	v := &view{mounts: []viewMount{{dest: "/", host: m.host}}}
	at, _, err := v.walk(name, notMade)
	if at != nil {
		defer at.close()
	}
	if err == nil {
		err = do(at)
	}
	if err == nil {
		return nil
	}
	if err = plain(err); errors.Is(err, fs.ErrNotExist) {
		err = unix.ENOENT // the words clients look for
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// plain is an error without the path it was met at.
func plain(err error) error {
	for p := (*fs.PathError)(nil); errors.As(err, &p); {
		err = p.Err
	}
	return err
}

// mount returns the mount with a number of the spec.
func (c *Container) mount(i int) (*mount, error) {
	if i < 0 || i >= len(c.s.mounts) {
		return nil, &InvalidSpecError{Field: "mount", Err: fmt.Errorf("number %d is out of bounds: there are %d", i, len(c.s.mounts))}
	}
	m := c.order[i]
	if m.host == "" {
		return nil, &InvalidSpecError{Field: "mount " + m.Dest, Err: fmt.Errorf("a mount of type %s cannot be looked into", m.Type)}
	}
	return m, nil
}

// entryAt describes what name is in the directory dir, or dir itself for no name.
func entryAt(dir int, name string) (fstree.Entry, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fstree.Entry{}, err
	}
	e := fstree.Entry{Path: name, Mode: st.Mode, UID: st.Uid, GID: st.Gid, ModTime: time.Unix(st.Mtim.Unix())}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		e.Size = st.Size
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(dir, name, buf)
		if err != nil {
			return fstree.Entry{}, err
		}
		e.Linkname = string(buf[:n])
	case unix.S_IFBLK, unix.S_IFCHR:
		e.Major, e.Minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	}
	return e, nil
}
