package filesync

import (
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/tonistiigi/fsutil/types"
)

// Limits bounds what a peer may send. Zero fields take the defaults.
type Limits struct {
	// Entries is how many there may be; default [DefaultEntries].
	Entries int
	// Total is how many bytes of file contents may be received; default no limit.
	Total int64
	// PathLength is in bytes, of paths and link targets; default 4096.
	PathLength int
	// XattrBytes is the size of names and values together, per entry; default 256 KiB.
	XattrBytes int
}

// DefaultEntries is how many entries a peer may send if nothing else is said.
const DefaultEntries = 4 << 20

func (l Limits) withDefaults() Limits {
	if l.Entries == 0 {
		l.Entries = DefaultEntries
	}
	if l.PathLength == 0 {
		l.PathLength = 4096
	}
	if l.XattrBytes == 0 {
		l.XattrBytes = 256 << 10
	}
	return l
}

// validator checks that STATs describe a tree in walk order: clean relative paths, every parent a directory that came before,
// siblings strictly ascending, hard links to files that came before.
type validator struct {
	limits Limits
	count  int
	dirs   []openDir // the chain of directories that may still get entries, outermost first; [0] is the root
	files  map[string]struct{}
}

type openDir struct{ path, last string }

func newValidator(l Limits) *validator {
	return &validator{limits: l, dirs: []openDir{{}}, files: map[string]struct{}{}}
}

func (v *validator) check(st *types.Stat) error {
	fail := func(format string, args ...any) error {
		return &ProtocolError{Path: clip(st.Path), Reason: fmt.Sprintf(format, args...)}
	}
	if v.count++; v.count > v.limits.Entries {
		return fail("more than %d entries", v.limits.Entries)
	}
	if reason := checkPath(st.Path, v.limits.PathLength); reason != "" {
		return fail("%s", reason)
	}
	if reason := v.checkMeta(st); reason != "" {
		return fail("%s", reason)
	}
	dir, base := path.Split(st.Path)
	dir = strings.TrimSuffix(dir, "/")
	for v.dirs[len(v.dirs)-1].path != dir {
		if len(v.dirs) == 1 {
			return fail("its directory was not sent before it")
		}
		v.dirs = v.dirs[:len(v.dirs)-1]
	}
	parent := &v.dirs[len(v.dirs)-1]
	if base <= parent.last {
		return fail("out of order after %q", parent.last)
	}
	parent.last = base

	switch mode := fs.FileMode(st.Mode); {
	case mode.IsDir():
		v.dirs = append(v.dirs, openDir{path: st.Path})
	case mode&fs.ModeSymlink != 0:
	case st.Linkname != "":
		if _, ok := v.files[st.Linkname]; !ok {
			return fail("hard link to %q, which was not sent before it", clip(st.Linkname))
		}
	default:
		v.files[st.Path] = struct{}{}
	}
	return nil
}

// checkPath returns what is wrong with a path, or "".
func checkPath(p string, limit int) string {
	switch {
	case p == "" || p == ".":
		return "empty path"
	case len(p) > limit:
		return fmt.Sprintf("path longer than %d bytes", limit)
	case p[0] == '/':
		return "absolute path"
	case strings.IndexByte(p, 0) >= 0:
		return "NUL in path"
	case p == ".." || strings.HasPrefix(p, "../"):
		return "path leads out of the tree"
	case path.Clean(p) != p:
		return "path is not clean"
	}
	return ""
}

func (v *validator) checkMeta(st *types.Stat) string {
	switch fs.FileMode(st.Mode).Type() {
	case 0, fs.ModeDir, fs.ModeNamedPipe, fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice:
	case fs.ModeSymlink:
		if st.Linkname == "" {
			return "symlink without target"
		}
	default:
		return fmt.Sprintf("unknown file type %v", fs.FileMode(st.Mode).Type())
	}
	if st.Size < 0 || st.Size > 1<<56 { // sums of sizes must not overflow
		return "size out of range"
	}
	if len(st.Linkname) > v.limits.PathLength {
		return fmt.Sprintf("link target longer than %d bytes", v.limits.PathLength)
	}
	if strings.IndexByte(st.Linkname, 0) >= 0 {
		return "NUL in link target"
	}
	const maxDev = 1<<32 - 1
	if st.Devmajor < 0 || st.Devmajor > maxDev || st.Devminor < 0 || st.Devminor > maxDev {
		return "device number out of range"
	}
	n := 0
	for k, val := range st.Xattrs {
		if k == "" || strings.IndexByte(k, 0) >= 0 {
			return "bad name of extended attribute"
		}
		n += len(k) + len(val)
	}
	if n > v.limits.XattrBytes {
		return fmt.Sprintf("extended attributes larger than %d bytes", v.limits.XattrBytes)
	}
	return ""
}

// clip shortens foreign text for messages.
func clip(s string) string {
	if len(s) > 256 {
		return s[:256] + "…"
	}
	return s
}
