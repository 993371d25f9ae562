//go:build unix

package filesync

import (
	"context"
	"errors"
	"fmt"
	"io"
	gofs "io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"
)

// hostFS is a directory on this host. It differs from fsutil's in three ways: it gives change hints; a file that vanishes
// during the walk takes only itself out of it, not the rest of its directory; and hard links are told apart by device too.
type hostFS struct {
	root  string
	hints bool
}

func newHostFS(root string) (*hostFS, error) {
	real, err := filepath.EvalSymlinks(root)
	if err != nil {
		return nil, err
	}
	fi, err := os.Stat(real)
	if err != nil {
		return nil, err
	}
	if !fi.IsDir() {
		return nil, &os.PathError{Op: "sync", Path: root, Err: syscall.ENOTDIR}
	}
	return &hostFS{root: real}, nil
}

// Open opens a regular file without following a symlink that took its place. Reading fails if the file is changed meanwhile.
func (h *hostFS) Open(p string) (io.ReadCloser, error) {
	f, err := os.OpenFile(filepath.Join(h.root, p), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENXIO) { // now a link or a socket
		return nil, &os.PathError{Op: "open", Path: p, Err: gofs.ErrNotExist} // what was listed is not there any more
	}
	if err != nil {
		return nil, err
	}
	return steady(f)
}

type inode struct{ dev, ino uint64 }

// Walk implements fsutil.FS.
func (h *hostFS) Walk(ctx context.Context, target string, fn gofs.WalkDirFunc) error {
	w := &hostWalk{h: h, fn: fn, links: map[inode]string{}, now: time.Now()}
	return filepath.WalkDir(filepath.Join(h.root, target), func(path string, d gofs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return w.visit(path, d, err)
	})
}

// hostWalk is one walk.
type hostWalk struct {
	h     *hostFS
	fn    gofs.WalkDirFunc
	links map[inode]string // first name of each file that has several
	now   time.Time
	names []byte // buffer for names of attributes
}

func (w *hostWalk) visit(full string, d gofs.DirEntry, walkErr error) error {
	rel, err := filepath.Rel(w.h.root, full)
	if err != nil {
		return err
	}
	if rel == "." {
		if walkErr != nil && !isGone(walkErr) {
			return walkErr
		}
		return nil
	}
	if isGone(walkErr) {
		return nil
	}
	var entry gofs.DirEntry
	he := &hostEntry{DirEntry: d, w: w, full: full, rel: rel}
	if d != nil {
		entry = he
	}
	err = w.fn(rel, entry, walkErr)
	if he.gone && (errors.Is(err, filepath.SkipDir) || isGone(err)) {
		// Filters turn "not there" into SkipDir, which for a file would mean the rest of its directory.
		if d.IsDir() {
			return filepath.SkipDir
		}
		return nil
	}
	if isGone(err) {
		return filepath.SkipDir
	}
	return err
}

// hostEntry is an entry that is looked at when someone wants to know more than its name: what a filter skips costs no stat.
type hostEntry struct {
	gofs.DirEntry
	w         *hostWalk
	full, rel string
	stat      *types.Stat
	gone      bool
}

// Info implements fs.DirEntry; Sys gives a *types.Stat that the caller may change.
func (e *hostEntry) Info() (gofs.FileInfo, error) {
	if e.stat == nil {
		st, err := e.w.stat(e.full, e.rel)
		if err != nil {
			e.gone = isGone(err)
			return nil, err
		}
		e.stat = st
	}
	return &fsutil.StatInfo{Stat: e.stat.CloneVT()}, nil
}

func (w *hostWalk) stat(full, rel string) (*types.Stat, error) {
	if !utf8.ValidString(rel) {
		return nil, fmt.Errorf("%q: name is not valid UTF-8 and cannot be sent; add it to .dockerignore", rel)
	}
	fi, err := os.Lstat(full)
	if err != nil {
		return nil, err
	}
	sys := fi.Sys().(*syscall.Stat_t)
	st := &types.Stat{
		Path: rel, Mode: uint32(fi.Mode()), ModTime: fi.ModTime().UnixNano(),
		Uid: sys.Uid, Gid: sys.Gid,
	}
	if err := w.xattrs(full, st); err != nil {
		return nil, err
	}
	if fi.IsDir() {
		return st, nil
	}
	st.Size = fi.Size()
	switch mode := fi.Mode(); {
	case mode&gofs.ModeSymlink != 0:
		st.Linkname, err = os.Readlink(full)
		return st, err
	case mode&gofs.ModeDevice != 0:
		st.Devmajor, st.Devminor = int64(unix.Major(uint64(sys.Rdev))), int64(unix.Minor(uint64(sys.Rdev))) //nolint:unconvert // differs by platform
	case mode.IsRegular() && w.h.hints:
		if h := hintOf(sys, w.now); h != "" {
			if st.Xattrs == nil {
				st.Xattrs = map[string][]byte{}
			}
			st.Xattrs[hintXattr] = []byte(h)
		}
	}
	if sys.Nlink > 1 {
		key := inode{uint64(sys.Dev), sys.Ino} //nolint:unconvert // differs by platform
		if firstName, ok := w.links[key]; ok {
			st.Linkname = firstName
		} else {
			w.links[key] = rel
		}
	}
	return st, nil
}

func (w *hostWalk) xattrs(full string, st *types.Stat) error {
	if w.names == nil {
		w.names = make([]byte, 64<<10) // the kernel's limit
	}
	n, err := unix.Llistxattr(full, w.names)
	if errors.Is(err, unix.ENOTSUP) || n == 0 && err == nil {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "list extended attributes", Path: full, Err: err}
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(w.names[:n]), "\x00"), "\x00") {
		if strings.HasPrefix(name, "com.apple.") {
			continue
		}
		val, ok := lgetxattr(full, name)
		if !ok {
			continue // not readable by this user, or gone: as if it were not there
		}
		if st.Xattrs == nil {
			st.Xattrs = map[string][]byte{}
		}
		st.Xattrs[name] = val
	}
	return nil
}

func lgetxattr(full, name string) ([]byte, bool) {
	buf := make([]byte, 256)
	for range 4 { // it may grow between the calls
		n, err := unix.Lgetxattr(full, name, buf)
		if err == nil {
			return buf[:n], true
		}
		if !errors.Is(err, unix.ERANGE) {
			return nil, false
		}
		if n, err = unix.Lgetxattr(full, name, nil); err != nil {
			return nil, false
		}
		buf = make([]byte, n)
	}
	return nil, false
}
