package layerstest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Snapshot describes everything below root that a layer is to keep, one line per name: type, mode, owner, time, size, digest of
// the content, target, device, extended attributes, and with which other names it is one file.
func Snapshot(tb testing.TB, root string) map[string]string {
	tb.Helper()
	found := map[string]string{}
	first := map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		line, err := describe(path, name, first)
		found[name] = line
		return err
	})
	if err != nil {
		tb.Fatalf("read %s: %v", root, err)
	}
	return found
}

func describe(path, name string, first map[uint64]string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%o %d:%d %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
	switch st.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		data, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		sum := sha256.Sum256(data)
		fmt.Fprintf(&b, " %d %s", len(data), hex.EncodeToString(sum[:6]))
		if st.Nlink > 1 {
			if other, ok := first[st.Ino]; ok {
				fmt.Fprintf(&b, " = %s", other)
			} else {
				first[st.Ino] = name
			}
		}
	case syscall.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, " -> %s", target)
	case syscall.S_IFCHR, syscall.S_IFBLK:
		fmt.Fprintf(&b, " %d,%d", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev)))
	}
	x, err := xattrs(path)
	b.WriteString(x)
	return b.String(), err
}

func xattrs(path string) (string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		return "", nil //nolint:nilerr // a file system without them
	}
	names := strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 })
	sort.Strings(names)
	var b strings.Builder
	for _, name := range names {
		if strings.HasPrefix(name, "user.overlay.") {
			continue // overlayfs's own, for mounts without privileges
		}
		n, err := unix.Lgetxattr(path, name, buf)
		if err != nil {
			return "", fmt.Errorf("%s of %s: %w", name, path, err)
		}
		fmt.Fprintf(&b, " %s=%q", name, buf[:n])
	}
	return b.String(), nil
}

// Same fails the test unless two snapshots are equal, except for the names given.
func Same(tb testing.TB, got, want map[string]string, except ...string) {
	tb.Helper()
	skip := map[string]bool{}
	for _, e := range except {
		skip[e] = true
	}
	for name, w := range want {
		if g, ok := got[name]; !skip[name] && (!ok || g != w) {
			tb.Errorf("%s\n got %s\nwant %s", name, g, w)
		}
	}
	for name, g := range got {
		if _, ok := want[name]; !skip[name] && !ok {
			tb.Errorf("%s should not be there: %s", name, g)
		}
	}
}
