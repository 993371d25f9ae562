package layers

import (
	"context"
	"errors"
	"fmt"
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

// clearOpaque takes the mark off directories of an upper that hide nothing. Overlayfs puts it on every directory that a step
// makes, to spare itself look-ups; in a layer it would be a statement about other layers: merged over them, the directory would
// hide what is theirs.
func (s *Store) clearOpaque(ctx context.Context, u *Upper, dirs []string) error {
	if u.lower == nil {
		return nil
	}
	var below fstree.Tree
	opaqueXattr := s.opaqueXattr()
	for _, dir := range dirs {
		path := filepath.Join(u.fs(), dir)
		var value [1]byte
		n, err := unix.Lgetxattr(path, opaqueXattr, value[:])
		if err != nil || n != 1 || value[0] != 'y' {
			continue // most have none
		}
		if below == nil {
			if below, err = s.Tree(ctx, u.lower); err != nil {
				return fmt.Errorf("read layers below: %w", err)
			}
		}
		if e, err := below.Stat(ctx, dir); err == nil && e.IsDir() {
			continue
		}
		if err := unix.Lremovexattr(path, opaqueXattr); err != nil && !errors.Is(err, unix.ENODATA) {
			return fmt.Errorf("clear %s of %s: %w", opaqueXattr, dir, err)
		}
	}
	return nil
}
