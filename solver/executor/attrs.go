package executor

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strings"

	"golang.org/x/sys/unix"
)

// attrs is what a change to a file shows in.
type attrs struct {
	mode     uint32
	uid, gid uint32
	size     int64 // of a file
	mtime    unix.Timespec
	xattrs   map[string]string
}

func (a attrs) equal(b attrs) bool {
	return a.mode == b.mode && a.uid == b.uid && a.gid == b.gid && a.size == b.size && a.mtime == b.mtime && maps.Equal(a.xattrs, b.xattrs)
}

func setTime(root int, rel string, t unix.Timespec) error {
	fd, err := openBelow(root, rel)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.UtimesNanoAt(fd, ".", []unix.Timespec{{Nsec: unix.UTIME_OMIT}, t}, 0)
}

// openBelow opens rel without following any symlink: what lies there was the step's to change.
func openBelow(root int, rel string) (int, error) {
	if rel == "" {
		rel = "."
	}
	return unix.Openat2(root, rel, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
}

func attrsBelow(root int, rel string) (attrs, error) {
	fd, err := openBelow(root, rel)
	if err != nil {
		return attrs{}, err
	}
	defer func() { _ = unix.Close(fd) }()
	return attrsOf(fd)
}

// attrsAt is attrsOf for a path of dots only.
func attrsAt(dir int, dots string) (attrs, error) {
	fd, err := openIn(dir, dots)
	if err != nil {
		return attrs{}, err
	}
	defer func() { _ = unix.Close(fd) }()
	return attrsOf(fd)
}

func attrsOf(fd int) (attrs, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return attrs{}, err
	}
	a := attrs{mode: st.Mode, uid: st.Uid, gid: st.Gid, mtime: st.Mtim}
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		a.size = st.Size
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return a, nil // never one of ours; its type says so
	}
	var err error
	a.xattrs, err = xattrsOf(fd)
	return a, err
}

// xattrsOf reads extended attributes, without those that overlayfs keeps for itself.
func xattrsOf(fd int) (map[string]string, error) {
	name := fmt.Sprintf("/proc/self/fd/%d", fd)
	size, err := unix.Listxattr(name, nil)
	if errors.Is(err, unix.ENOTSUP) || (err == nil && size == 0) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	buf := make([]byte, size)
	if size, err = unix.Listxattr(name, buf); err != nil {
		return nil, err
	}
	xattrs := map[string]string{}
	for _, attr := range strings.Split(strings.TrimRight(string(buf[:size]), "\x00"), "\x00") {
		if attr == "" || strings.HasPrefix(attr, "trusted.overlay.") || strings.HasPrefix(attr, "user.overlay.") {
			continue
		}
		n, err := unix.Getxattr(name, attr, nil)
		if err != nil {
			return nil, err
		}
		value := make([]byte, n)
		if n, err = unix.Getxattr(name, attr, value); err != nil {
			return nil, err
		}
		xattrs[attr] = string(value[:n])
	}
	return xattrs, nil
}

func isOpaque(root int, rel string) (bool, error) {
	fd, err := openBelow(root, rel)
	if err != nil {
		return false, err
	}
	defer func() { _ = unix.Close(fd) }()
	name := fmt.Sprintf("/proc/self/fd/%d", fd)
	for _, attr := range []string{"trusted.overlay.opaque", "user.overlay.opaque"} {
		var buf [8]byte
		n, err := unix.Getxattr(name, attr, buf[:])
		if err == nil && n > 0 && buf[0] == 'y' {
			return true, nil
		}
	}
	return false, nil
}

// isGone says that a path no longer leads anywhere we went before.
func isGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}
