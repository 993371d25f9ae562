package blob

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"golang.org/x/sys/unix"
)

// DirTree is the tree of the layer that the directory root holds in the way of an overlayfs upper directory: a character
// device 0:0 is a whiteout, a directory with an overlay.opaque attribute is opaque, the root is implied if it is a plain 0755
// of 0:0. The directory must not change any more. Nothing outside of it is ever looked at, whatever symlinks it holds.
// Where a file only makes sense with the layers below, reading it is [ErrNotSelfContained].
//
// The tree implements [fstree.Digester].
func DirTree(root string) fstree.Tree { return newDirTree(root, trustedOverlay) }

// DirTreeUserxattr is [DirTree] for an upper directory of an overlay mounted with userxattr.
func DirTreeUserxattr(root string) fstree.Tree { return newDirTree(root, userOverlay) }

func newDirTree(root, marks string) *dirTree {
	return &dirTree{
		marks:   marks,
		host:    sync.OnceValues(func() (string, error) { return filepath.EvalSymlinks(root) }),
		digests: map[string]digest.Digest{},
	}
}

type dirTree struct {
	// marks is what the attributes begin with that overlayfs obeyed. Others like them were written by who knows whom.
	marks string
	// host is where the root is, without a symlink on the way there.
	host func() (string, error)

	links   sync.Once // guards first and err
	first   map[fileID]string
	linkErr error

	mu      sync.Mutex
	digests map[string]digest.Digest // by path; guarded by mu
}

// fileID tells files of one file system apart.
type fileID struct{ dev, ino uint64 }

func idOf(st *unix.Stat_t) fileID { return fileID{uint64(st.Dev), st.Ino} }

func (t *dirTree) Stat(ctx context.Context, p string) (fstree.Entry, error) {
	e, err := t.stat(ctx, p)
	if err != nil {
		return fstree.Entry{}, pathError("stat", p, err)
	}
	return e, nil
}

func (t *dirTree) stat(ctx context.Context, p string) (e fstree.Entry, err error) {
	if err := ctx.Err(); err != nil {
		return e, err
	}
	dir, name := path.Split(p)
	if p == "" {
		name = "."
	}
	d, err := t.openDir(dir)
	if errors.Is(err, fstree.ErrNotDir) {
		return e, fs.ErrNotExist
	}
	if err != nil {
		return e, err
	}
	defer func() { _ = d.Close() }() // only read from
	return t.entry(ctx, d, name, p)
}

func (t *dirTree) ReadDir(ctx context.Context, p string) ([]fstree.Entry, error) {
	es, err := t.readDir(ctx, p)
	if err != nil {
		return nil, pathError("readdir", p, err)
	}
	return es, nil
}

func (t *dirTree) readDir(ctx context.Context, p string) ([]fstree.Entry, error) {
	d, err := t.openDir(p)
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.Close() }() // only read from
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	es := make([]fstree.Entry, len(names))
	for i, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if es[i], err = t.entry(ctx, d, name, path.Join(p, name)); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return es, nil
}

// openDir opens a directory for reading.
func (t *dirTree) openDir(p string) (*os.File, error) {
	f, err := t.open(p, unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, t.notDir(p)
	}
	return f, err
}

// open opens what is at p. No symlink is followed on the way, so no path leads out of the root.
func (t *dirTree) open(p string, flags int) (*os.File, error) {
	host, err := t.host()
	if err != nil {
		return nil, err
	}
	host = path.Join(host, p)
	fd, err := unix.Openat2(unix.AT_FDCWD, host, &unix.OpenHow{
		Flags:   uint64(flags | unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), host), nil
}

// notDir tells what is no directory itself from what lies below such a thing, and so is not there.
func (t *dirTree) notDir(p string) error {
	d, err := t.open(path.Dir(strings.TrimSuffix(p, "/")), unix.O_DIRECTORY)
	if err != nil {
		return fs.ErrNotExist
	}
	_ = d.Close() // only looked for
	return fstree.ErrNotDir
}

// entry reads the entry called name in the open directory d.
func (t *dirTree) entry(ctx context.Context, d *os.File, name, p string) (e fstree.Entry, err error) {
	fd := int(d.Fd())
	var st unix.Stat_t
	if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return e, err
	}
	e = fstree.Entry{
		Path:    p,
		Mode:    st.Mode,
		UID:     st.Uid,
		GID:     st.Gid,
		ModTime: time.Unix(st.Mtim.Unix()).UTC(),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		e.Size = st.Size
	case unix.S_IFCHR, unix.S_IFBLK:
		e.Major, e.Minor = unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))
		if st.Rdev == 0 && st.Mode&unix.S_IFMT == unix.S_IFCHR {
			return fstree.Entry{Path: p, Whiteout: true}, nil
		}
	case unix.S_IFLNK:
		if e.Linkname, err = readlink(fd, name, st.Size); err != nil {
			return e, err
		}
	}
	if err := dirXattrs(&e, fd, name, t.marks); err != nil {
		return e, err
	}
	if e.Whiteout {
		return fstree.Entry{Path: p, Whiteout: true}, nil
	}
	if p == "" {
		e.Implied = e.Mode == unix.S_IFDIR|0o755 && e.UID == 0 && e.GID == 0 && len(e.Xattrs) == 0
	}
	if st.Nlink > 1 && !e.IsDir() {
		first, err := t.firstName(ctx, idOf(&st))
		if err != nil {
			return e, err
		}
		if first != p {
			e.Hardlink = first
		}
	}
	return e, nil
}

func readlink(fd int, name string, size int64) (string, error) {
	buf := make([]byte, size+1)
	for {
		n, err := unix.Readlinkat(fd, name, buf)
		if err != nil {
			return "", err
		}
		if n < len(buf) {
			return string(buf[:n]), nil
		}
		buf = make([]byte, 2*len(buf))
	}
}

// dirXattrs reads the extended attributes of name in the directory fd, and obeys those of overlayfs.
func dirXattrs(e *fstree.Entry, fd int, name, marks string) error {
	// The l calls take no directory. The descriptor pins it, and the last component is not followed.
	p := "/proc/self/fd/" + strconv.Itoa(fd) + "/" + name
	names, err := listXattrs(p)
	if err != nil {
		return err
	}
	for _, n := range names {
		v, err := getXattr(p, n)
		if err != nil {
			return fmt.Errorf("extended attribute %s: %w", n, err)
		}
		own, ok := strings.CutPrefix(n, marks)
		switch {
		case !ok && isOverlayXattr(n):
		case !ok:
			if e.Xattrs == nil {
				e.Xattrs = map[string]string{}
			}
			e.Xattrs[n] = v
		case own == opaqueSuffix:
			e.Opaque = v == "y"
		case own == "whiteout":
			e.Whiteout = e.IsRegular() && e.Size == 0
		case own == "redirect" || own == "metacopy":
			return fmt.Errorf("%w: it has %s", ErrNotSelfContained, n)
		}
	}
	return nil
}

func listXattrs(p string) ([]string, error) {
	var stack [1024]byte
	buf := stack[:]
	for {
		n, err := unix.Llistxattr(p, buf)
		switch {
		case errors.Is(err, unix.ENOTSUP):
			return nil, nil
		case errors.Is(err, unix.ERANGE):
			buf = make([]byte, 64<<10) // the most there can be
			continue
		case err != nil:
			return nil, err
		case n == 0:
			return nil, nil
		}
		return strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00"), nil
	}
}

func getXattr(p, name string) (string, error) {
	var stack [256]byte
	buf := stack[:]
	for {
		n, err := unix.Lgetxattr(p, name, buf)
		if errors.Is(err, unix.ERANGE) && len(buf) <= maxXattrValue {
			buf = make([]byte, maxXattrValue+1)
			continue
		}
		if err != nil {
			return "", err
		}
		return string(buf[:n]), nil
	}
}

// firstName returns the first name of a file with several. Only a look at everything can tell, so it is taken once.
func (t *dirTree) firstName(ctx context.Context, id fileID) (string, error) {
	t.links.Do(func() {
		t.first = map[fileID]string{}
		// The search serves every later call, too, so it does not end with this one's context.
		t.linkErr = t.findLinks(context.WithoutCancel(ctx), "")
	})
	return t.first[id], t.linkErr
}

func (t *dirTree) findLinks(ctx context.Context, p string) error {
	d, err := t.openDir(p)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }() // only read from
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		q := path.Join(p, name)
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			if err := t.findLinks(ctx, q); err != nil {
				return err
			}
		} else if _, ok := t.first[idOf(&st)]; !ok && st.Nlink > 1 {
			t.first[idOf(&st)] = q
		}
	}
	return nil
}

func (t *dirTree) Open(ctx context.Context, p string) (fstree.Content, error) {
	c, err := t.content(ctx, p)
	if err != nil {
		return nil, pathError("open", p, err)
	}
	return c, nil
}

func (t *dirTree) content(ctx context.Context, p string) (fstree.Content, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// Looked at first: opening a device can do things.
	host, err := t.host()
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Lstat(path.Join(host, p), &st); errors.Is(err, unix.ENOTDIR) {
		return nil, fs.ErrNotExist
	} else if err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fstree.ErrNotRegular
	}
	f, err := t.open(p, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, fs.ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	if err = unix.Fstat(int(f.Fd()), &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = fstree.ErrNotRegular
	}
	if err != nil {
		_ = f.Close() // the error that counts is there already
		return nil, err
	}
	return &fileContent{f, st.Size}, nil
}

type fileContent struct {
	*os.File
	size int64
}

func (c *fileContent) Size() int64 { return c.size }

// FileDigest implements [fstree.Digester]. The digest of a file is computed once.
func (t *dirTree) FileDigest(ctx context.Context, p string) (digest.Digest, bool, error) {
	t.mu.Lock()
	d, ok := t.digests[p]
	t.mu.Unlock()
	if ok {
		return d, true, nil
	}
	c, err := t.Open(ctx, p)
	if err != nil {
		return "", false, err
	}
	defer func() { _ = c.Close() }() // only read from
	h := sha256.New()
	if _, err := io.Copy(h, &ctxReader{ctx, io.NewSectionReader(c, 0, c.Size())}); err != nil {
		return "", false, pathError("digest", p, err)
	}
	d = digest.NewDigest(digest.SHA256, h)
	t.mu.Lock()
	t.digests[p] = d
	t.mu.Unlock()
	return d, true, nil
}
