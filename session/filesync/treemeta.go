//go:build unix

package filesync

import (
	"errors"
	"fmt"
	gofs "io/fs"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"
)

// setMeta sets owner, mode, attributes and time, in the order in which none undoes another.
func (w *treeWriter) setMeta(name string, st *types.Stat) error {
	mode := gofs.FileMode(st.Mode)
	if w.to.KeepOwner {
		if err := w.root.Lchown(name, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	if mode&gofs.ModeSymlink != 0 {
		return w.lchtimes(name, st)
	}
	w.setXattrs(name, st)
	if err := w.root.Chmod(name, mode&(gofs.ModePerm|gofs.ModeSetuid|gofs.ModeSetgid|gofs.ModeSticky)); err != nil {
		return err
	}
	t := time.Unix(0, st.ModTime)
	return w.root.Chtimes(name, t, t)
}

func (w *treeWriter) lchtimes(name string, st *types.Stat) error {
	dir, err := w.root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }() // only a place
	ts, err := unix.TimeToTimespec(time.Unix(0, st.ModTime))
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(int(dir.Fd()), path.Base(name), []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

// setXattrs sets what this file system and user can: an export to a disk without them is still one.
func (w *treeWriter) setXattrs(name string, st *types.Stat) {
	if len(st.Xattrs) == 0 || !gofs.FileMode(st.Mode).IsRegular() && !gofs.FileMode(st.Mode).IsDir() {
		return
	}
	f, err := w.root.Open(name)
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }() // opened for its descriptor
	for k, v := range st.Xattrs {
		if strings.HasPrefix(k, "security.") && !w.to.KeepOwner {
			continue
		}
		_ = unix.Fsetxattr(int(f.Fd()), k, v, 0) // as far as it goes
	}
}

// finish sets modes and times of directories, deepest first, and removes what is to be removed.
func (w *treeWriter) finish() error {
	if w.kept != nil {
		if err := w.removeOthers("."); err != nil {
			return err
		}
	}
	for _, st := range slices.Backward(w.dirs) {
		if err := w.setMeta(st.Path, st); err != nil {
			return fmt.Errorf("write %q: %w", st.Path, err)
		}
	}
	return nil
}

func (w *treeWriter) removeOthers(dir string) error {
	d, err := w.root.Open(dir)
	if err != nil {
		return err
	}
	entries, err := d.ReadDir(-1)
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		p := path.Join(dir, e.Name())
		if _, ok := w.kept[p]; !ok {
			if err := w.root.RemoveAll(p); err != nil && !errors.Is(err, syscall.ENOENT) {
				return err
			}
		} else if e.IsDir() {
			if err := w.removeOthers(p); err != nil {
				return err
			}
		}
	}
	return nil
}
