// Probe is what the end-to-end tests put into images: it shows a file system as the kernel has it, and makes what busybox cannot.
//
//	probe list ROOT [SKIP...]      one line per file below ROOT, sorted; what is skipped is neither shown nor entered
//	probe setxattr FILE NAME VALUE
//	probe rmxattr FILE NAME
//	probe socket FILE              leaves a unix socket behind
package main

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) >= 2 && args[0] == "list":
		return list(os.Stdout, args[1], args[2:])
	case len(args) == 4 && args[0] == "setxattr":
		return unix.Lsetxattr(args[1], args[2], []byte(args[3]), 0)
	case len(args) == 3 && args[0] == "rmxattr":
		return unix.Lremovexattr(args[1], args[2])
	case len(args) == 2 && args[0] == "socket":
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: args[1]})
		if err != nil {
			return err
		}
		l.SetUnlinkOnClose(false)
		return l.Close()
	}
	return fmt.Errorf("what is %q?", args)
}

// inode tells files apart, so that names of one file are found.
type inode struct{ dev, ino uint64 }

func list(w io.Writer, root string, skip []string) error {
	first := map[inode]string{}
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if slices.Contains(skip, rel) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		line, err := describe(path, rel, first)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		_, err = fmt.Fprintf(w, "%q %s\n", rel, line)
		return err
	})
}

// describe is all that a file is, but for its name: fields "key=value", those that say nothing left out.
func describe(path, rel string, first map[inode]string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", err
	}
	fields := []string{
		fmt.Sprintf("mode=%06o", st.Mode), fmt.Sprintf("uid=%d", st.Uid), fmt.Sprintf("gid=%d", st.Gid),
		fmt.Sprintf("mtime=%d.%09d", st.Mtim.Sec, st.Mtim.Nsec),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		sum, err := hash(path)
		if err != nil {
			return "", err
		}
		fields = append(fields, fmt.Sprintf("size=%d", st.Size), "sha256="+sum)
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		fields = append(fields, fmt.Sprintf("target=%q", target))
	case unix.S_IFCHR, unix.S_IFBLK:
		fields = append(fields, fmt.Sprintf("dev=%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)))
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
		id := inode{st.Dev, st.Ino}
		if first[id] == "" {
			first[id] = rel
		} else {
			fields = append(fields, fmt.Sprintf("same=%q", first[id]))
		}
	}
	attrs, err := xattrs(path)
	return strings.Join(append(fields, attrs...), " "), err
}

func hash(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	_, err = io.Copy(h, f)
	return fmt.Sprintf("%x", h.Sum(nil)), errors.Join(err, f.Close())
}

func xattrs(path string) ([]string, error) {
	names := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, names)
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var fields []string
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return nil, err
		}
		fields = append(fields, fmt.Sprintf("%s=%q", name, value[:n]))
	}
	slices.SortFunc(fields, cmp.Compare[string])
	return fields, nil
}
