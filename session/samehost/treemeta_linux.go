package samehost

import (
	"errors"
	"fmt"
	gofs "io/fs"
	"os"
	"strings"
	"time"
	"unsafe"

	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"
)

// setMeta sets owner, attributes, mode and time of an open file or directory, in the order in which none undoes another.
func (t *Tree) setMeta(fd int, st *types.Stat) error {
	if t.keepOwner {
		if err := unix.Fchown(fd, int(st.Uid), int(st.Gid)); err != nil {
			return os.NewSyscallError("chown", err)
		}
	}
	for k, v := range st.Xattrs {
		if strings.HasPrefix(k, "security.") && !t.keepOwner {
			continue
		}
		_ = unix.Fsetxattr(fd, k, v, 0) // an export to a disk without them is still one
	}
	if err := unix.Fchmod(fd, bitsOf(gofs.FileMode(st.Mode))); err != nil {
		return os.NewSyscallError("chmod", err)
	}
	ts, err := times(st)
	if err == nil {
		err = os.NewSyscallError("utimensat", futimens(fd, &ts))
	}
	return err
}

// setLink sets owner and time of a symlink.
func (t *Tree) setLink(dir int, name string, st *types.Stat) error {
	if t.keepOwner {
		if err := unix.Fchownat(dir, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return os.NewSyscallError("chown", err)
		}
	}
	ts, err := times(st)
	if err != nil {
		return err
	}
	return os.NewSyscallError("utimensat", unix.UtimesNanoAt(dir, name, ts[:], unix.AT_SYMLINK_NOFOLLOW))
}

// mknod makes a fifo or a device.
func (t *Tree) mknod(dir int, name string, st *types.Stat) error {
	mode, dev := uint32(unix.S_IFIFO), 0
	switch gofs.FileMode(st.Mode).Type() {
	case gofs.ModeDevice:
		mode = unix.S_IFBLK
	case gofs.ModeDevice | gofs.ModeCharDevice:
		mode = unix.S_IFCHR
	}
	if mode != unix.S_IFIFO {
		dev = int(unix.Mkdev(uint32(st.Devmajor), uint32(st.Devminor)))
	}
	err := unix.Mknodat(dir, name, mode|0o600, dev)
	if errors.Is(err, unix.EPERM) && mode != unix.S_IFIFO {
		return fmt.Errorf("make device: %w (only root can)", err)
	}
	if err != nil {
		return err
	}
	if t.keepOwner {
		if err := unix.Fchownat(dir, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return os.NewSyscallError("chown", err)
		}
	}
	if err := unix.Fchmodat(dir, name, bitsOf(gofs.FileMode(st.Mode)), 0); err != nil {
		return os.NewSyscallError("chmod", err)
	}
	ts, err := times(st)
	if err != nil {
		return err
	}
	return os.NewSyscallError("utimensat", unix.UtimesNanoAt(dir, name, ts[:], unix.AT_SYMLINK_NOFOLLOW))
}

// futimens is utimensat(2) of an open file, for which package unix has no function that counts in nanoseconds.
func futimens(fd int, ts *[2]unix.Timespec) error {
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(ts)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func times(st *types.Stat) (ts [2]unix.Timespec, err error) {
	ts[0], err = unix.TimeToTimespec(time.Unix(0, st.ModTime))
	ts[1] = ts[0]
	return ts, err
}

// bitsOf are the lower twelve bits of a mode.
func bitsOf(m gofs.FileMode) uint32 {
	b := uint32(m.Perm())
	if m&gofs.ModeSetuid != 0 {
		b |= unix.S_ISUID
	}
	if m&gofs.ModeSetgid != 0 {
		b |= unix.S_ISGID
	}
	if m&gofs.ModeSticky != 0 {
		b |= unix.S_ISVTX
	}
	return b
}
