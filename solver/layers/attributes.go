package layers

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/slipwaybuild/slipway/solver/layers/blob"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"golang.org/x/sys/unix"
)

// setAttributes gives the directory path owner, mode, extended attributes and time of e, in the order in which one does not
// undo another.
func setAttributes(path string, e fstree.Entry) error {
	if err := os.Lchown(path, int(e.UID), int(e.GID)); err != nil {
		return err
	}
	if err := unix.Chmod(path, e.Mode&0o7777); err != nil {
		return &os.PathError{Op: "chmod", Path: path, Err: err}
	}
	for name, value := range e.Xattrs {
		err := unix.Lsetxattr(path, name, []byte(value), 0)
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("set %s of %s: %w", name, path, err)
		}
	}
	t, err := unix.TimeToTimespec(e.ModTime)
	if err != nil {
		return nil // out of the range of this host's clock
	}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "set times of", Path: path, Err: err}
	}
	return nil
}

// dirEntry reads the attributes of a directory as the tree of a sealed upper would show them.
func dirEntry(path string) (fstree.Entry, error) {
	return blob.DirTree(path).Stat(context.Background(), "")
}
