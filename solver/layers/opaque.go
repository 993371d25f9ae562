package layers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/slipwaybuild/slipway/solver/layers/blob"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"golang.org/x/sys/unix"
)

// opaqueXattr is overlayfs's mark on a directory that hides what lies below.
func (s *Store) opaqueXattr() string {
	if s.caps.Userxattr {
		return "user.overlay.opaque"
	}
	return "trusted.overlay.opaque"
}

// dirTree reads the directory of a layer with the marks that overlays leave here.
func (s *Store) dirTree(path string) fstree.Tree {
	if s.caps.Userxattr {
		return blob.DirTreeUserxattr(path)
	}
	return blob.DirTree(path)
}

// clearOpaque takes the mark off directories of an upper. Overlayfs puts it on every directory that a step makes, to spare itself
// look-ups; in a layer it would be a statement about other layers: merged over them, the directory would hide what is theirs. Where the
// directory took the place of another, what is gone of that one is said name by name instead, as archives of layers have it. It tells
// whether it changed anything but marks.
func (s *Store) clearOpaque(ctx context.Context, u *Upper, dirs []string) (changed bool, err error) {
	if u.lower == nil {
		return false, nil
	}
	o := &speller{root: u.fs(), xattr: s.opaqueXattr()}
	for _, dir := range dirs {
		if !o.marked(dir) {
			continue // most have none
		}
		if o.below == nil {
			if o.below, err = s.Tree(ctx, u.lower); err != nil {
				return o.changed, fmt.Errorf("read layers below: %w", err)
			}
		}
		err := o.spell(ctx, dir)
		if errors.Is(err, unix.EPERM) {
			continue // not everybody may make whiteouts; the mark says the same to all but merges
		}
		if err != nil {
			return o.changed, fmt.Errorf("clear %s of %s: %w", o.xattr, dir, err)
		}
	}
	return o.changed, nil
}

// speller says name by name what marks say at once.
type speller struct {
	root    string // of the upper
	xattr   string
	below   fstree.Tree
	changed bool
}

func (o *speller) marked(dir string) bool {
	var value [1]byte
	n, err := unix.Lgetxattr(filepath.Join(o.root, dir), o.xattr, value[:])
	return err == nil && n == 1 && value[0] == 'y'
}

// spell takes the mark off a directory, after everything below it that it hides has been said. Directories inside hide as much as it
// does, whether they are marked or not.
func (o *speller) spell(ctx context.Context, dir string) error {
	at := filepath.Join(o.root, dir)
	old, err := o.below.Stat(ctx, dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && old.IsDir() {
		names, err := o.below.ReadDir(ctx, dir)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(at, &st); err != nil {
			return err
		}
		for _, e := range names {
			if err := o.cover(ctx, path.Join(dir, path.Base(e.Path)), e.IsDir()); err != nil {
				return err
			}
		}
		// Its time is the step's.
		times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, st.Mtim}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, at, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	if err := unix.Lremovexattr(at, o.xattr); err != nil && !errors.Is(err, unix.ENODATA) {
		return err
	}
	return nil
}

// cover hides one name of the layers below, unless the upper has something in its place.
func (o *speller) cover(ctx context.Context, name string, dir bool) error {
	at := filepath.Join(o.root, name)
	info, err := os.Lstat(at)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		o.changed = true
		return unix.Mknod(at, unix.S_IFCHR, int(unix.Mkdev(0, 0)))
	case err != nil:
		return err
	case dir && info.IsDir():
		return o.spell(ctx, name)
	}
	return nil
}
