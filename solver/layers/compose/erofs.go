//go:build linux

package compose

import "golang.org/x/sys/unix"

// Erofs mounts the EROFS image in the ordinary file path, read-only and detached. Mounting one file twice makes two copies of
// its cached pages, so share the descriptor. The file may be unlinked while it is mounted; it must not be changed.
func Erofs(path string) (fd int, err error) {
	c, err := openContext("erofs")
	if err != nil {
		return -1, err
	}
	defer c.close()
	if err := c.set("source", path); err != nil {
		return -1, err
	}
	if err := c.flag("ro"); err != nil {
		return -1, err
	}
	return c.mount(unix.MOUNT_ATTR_RDONLY)
}
