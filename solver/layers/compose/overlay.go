//go:build linux

package compose

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// MaxLowers is how many lowers an overlay takes. The kernel refuses the next one.
const MaxLowers = 500

// Overlay describes an overlay mount. Descriptors stay the caller's and may be closed once it is mounted.
type Overlay struct {
	// Lowers are directories (O_PATH) or detached mounts, top first: at least two if there is no upper.
	Lowers []int
	// Upper and Work are directories on one file system; both empty make the mount read-only.
	Upper, Work string
	// Index keeps hard links of lower files together when one of the names is written to.
	Index bool
	// Volatile makes fsync inside the mount do nothing. What was written is not safe from a power cut.
	Volatile bool
	// Legacy uses mount(2), for kernels whose overlayfs takes no descriptors. Lowers cannot be detached mounts then.
	Legacy bool
	// Userxattr keeps the kernel's marks in attributes that need no privilege: in a user namespace there is no other way.
	Userxattr bool
}

// Mount mounts o at target.
func (o Overlay) Mount(target string) error {
	if len(o.Lowers) > MaxLowers {
		return fmt.Errorf("mount overlay at %s: %d layers are more than the %d the kernel takes", target, len(o.Lowers), MaxLowers)
	}
	if o.Legacy {
		return o.mountLegacy(target)
	}
	fd, err := o.detached()
	if err != nil {
		return fmt.Errorf("at %s: %w", target, err)
	}
	defer func() { _ = unix.Close(fd) }() // the mount stays once it is moved
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return &Error{Op: "move mount to " + target, Err: err}
	}
	return nil
}

func (o Overlay) detached() (int, error) {
	c, err := openContext("overlay")
	if err != nil {
		return -1, err
	}
	defer c.close()
	// The name is what people read in the mount table.
	if err := c.set("source", "slipway"); err != nil {
		return -1, err
	}
	for _, fd := range o.Lowers {
		if err := c.setFD("lowerdir+", fd); err != nil {
			return -1, err
		}
	}
	attrs := unix.MOUNT_ATTR_RDONLY
	if o.Upper != "" {
		attrs = 0
		if err := c.set("upperdir", o.Upper); err != nil {
			return -1, err
		}
		if err := c.set("workdir", o.Work); err != nil {
			return -1, err
		}
	}
	for _, kv := range o.options() {
		key, value, ok := strings.Cut(kv, "=")
		if ok {
			err = c.set(key, value)
		} else {
			err = c.flag(key)
		}
		if err != nil {
			return -1, err
		}
	}
	return c.mount(attrs)
}

// options are those both ways of mounting share. Redirects and metadata-only copies would make an upper that means nothing
// without the layers it was made on.
func (o Overlay) options() []string {
	opts := []string{"redirect_dir=off", "metacopy=off"}
	if o.Userxattr {
		opts = []string{"userxattr"} // which rules the others out, and refuses to be told so
	}
	index := "index=off"
	if o.Index {
		index = "index=on"
	}
	opts = append(opts, index)
	if o.Volatile && o.Upper != "" {
		opts = append(opts, "volatile")
	}
	return opts
}

// mountLegacy names lowers by their short path in /proc, so that some 200 fit into the page mount(2) takes.
func (o Overlay) mountLegacy(target string) error {
	lowers := make([]string, len(o.Lowers))
	for i, fd := range o.Lowers {
		lowers[i] = fmt.Sprintf("/proc/self/fd/%d", fd)
	}
	data := "lowerdir=" + strings.Join(lowers, ":")
	var flags uintptr = unix.MS_RDONLY
	if o.Upper != "" {
		flags = 0
		data += ",upperdir=" + escape(o.Upper) + ",workdir=" + escape(o.Work)
	}
	data += "," + strings.Join(o.options(), ",")
	if len(data) >= unix.Getpagesize() {
		return fmt.Errorf("mount overlay at %s: %d layers do not fit into one page of options", target, len(o.Lowers))
	}
	if err := unix.Mount("slipway", target, "overlay", flags, data); err != nil {
		return &Error{Op: "mount overlay at " + target, Err: err}
	}
	return nil
}

func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, ",", `\,`, ":", `\:`).Replace(path)
}

// Unmount ends the mount at target. If it is still in use it is only taken out of the tree, ends with its last user, and busy
// is true.
func Unmount(target string) (busy bool, err error) {
	err = unix.Unmount(target, unix.UMOUNT_NOFOLLOW)
	if err == unix.EBUSY {
		busy, err = true, unix.Unmount(target, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	}
	if err != nil {
		return busy, &Error{Op: "unmount " + target, Err: err}
	}
	return busy, nil
}

// OpenDir opens a directory to be a lower.
func OpenDir(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &Error{Op: "open layer directory " + path, Err: err}
	}
	return fd, nil
}
