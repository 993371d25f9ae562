package layers

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// allocated is what a file takes on disk in bytes.
func allocated(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}

// allocatedAt is allocated for a path; 0 if there is nothing.
func allocatedAt(path string) int64 {
	info, err := os.Lstat(path)
	if err != nil {
		return 0
	}
	return allocated(info)
}

// diskUsage adds up what a tree takes on disk, as du(1) does: further names of a file count nothing. Names that vanish
// meanwhile are passed over.
func diskUsage(root string) (int64, error) {
	var sum int64
	err := scanTree(root, func(_ string, info fs.FileInfo, again bool) error {
		if !again {
			sum += allocated(info)
		}
		return nil
	})
	return sum, err
}

// scanTree calls fn for everything at and below root, with again set for further names of a file.
func scanTree(root string, fn func(path string, info fs.FileInfo, again bool) error) error {
	type inode struct{ dev, ino uint64 }
	seen := map[inode]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return passMissing(err)
		}
		info, err := d.Info()
		if err != nil {
			return passMissing(err)
		}
		again := false
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 && !info.IsDir() {
			key := inode{uint64(st.Dev), st.Ino} //nolint:unconvert // its type depends on the architecture
			again = seen[key]
			seen[key] = true
		}
		return fn(path, info, again)
	})
	if err != nil {
		return fmt.Errorf("measure %s: %w", root, err)
	}
	return nil
}

func passMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
