package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"time"

	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"golang.org/x/sys/unix"
)

// ErrUnprivileged is returned by [Unpack] for what the process may not make: a device, another's file, a trusted attribute.
var ErrUnprivileged = errors.New("not permitted")

// UnpackOptions goes with [Unpack].
type UnpackOptions struct {
	// Userxattr marks opaque directories for overlays mounted with userxattr, which need no privilege.
	Userxattr bool
}

// Unpack makes of the tree of one layer a directory as overlayfs writes it and as [DirTree] reads it. dir must exist, be empty
// and belong to the caller alone; it becomes the root, with its attributes unless they are implied. After an error what was
// made so far is still there. Sockets are left out. An error that is about an entry is an [EntryError].
func Unpack(ctx context.Context, t fstree.Tree, dir string, o UnpackOptions) error {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("unpack layer: open %s: %w", dir, err)
	}
	defer func() { _ = unix.Close(root) }() // an O_PATH descriptor has nothing to lose
	u := &unpacker{ctx: ctx, t: t, root: root, buf: make([]byte, 256<<10), opaque: trustedOverlay + opaqueSuffix}
	if o.Userxattr {
		u.opaque = userOverlay + opaqueSuffix
	}
	if err := u.run(); err != nil {
		return fmt.Errorf("unpack layer: %w", err)
	}
	return nil
}

type unpacker struct {
	ctx    context.Context
	t      fstree.Tree
	root   int
	buf    []byte
	opaque string // the name of the mark

	// Left for the end: links need their first names, directories keep their times only once nothing more is made inside.
	links []fstree.Entry
	dirs  []fstree.Entry
}

func (u *unpacker) run() error {
	root, err := u.t.Stat(u.ctx, "")
	if err != nil {
		return err
	}
	todo := []fstree.Entry{root}
	for len(todo) > 0 {
		e := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		below, err := u.fill(e)
		if err != nil {
			return err
		}
		u.dirs = append(u.dirs, e)
		todo = append(todo, below...)
	}
	for _, e := range u.links {
		if err := u.link(e); err != nil {
			return &EntryError{e.Path, permission(err)}
		}
	}
	for _, e := range slices.Backward(u.dirs) {
		if err := u.finishDir(e); err != nil {
			return &EntryError{e.Path, permission(err)}
		}
	}
	return nil
}

// fill makes everything that is in the directory e and returns the directories among it, which are still empty.
func (u *unpacker) fill(e fstree.Entry) ([]fstree.Entry, error) {
	es, err := u.t.ReadDir(u.ctx, e.Path)
	if err != nil {
		return nil, err
	}
	fd, err := u.open(e.Path)
	if err != nil {
		return nil, &EntryError{e.Path, err}
	}
	defer func() { _ = unix.Close(fd) }() // as above
	var dirs []fstree.Entry
	for _, c := range es {
		if err := u.ctx.Err(); err != nil {
			return nil, err
		}
		if err := u.make(fd, c); err != nil {
			return nil, &EntryError{c.Path, permission(err)}
		}
		if c.IsDir() {
			dirs = append(dirs, c)
		}
	}
	return dirs, nil
}

// open opens a directory that was made already.
func (u *unpacker) open(p string) (int, error) {
	if p == "" {
		p = "."
	}
	return unix.Openat2(u.root, p, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// make makes e in the directory fd.
func (u *unpacker) make(fd int, e fstree.Entry) error {
	name := e.Name()
	var err error
	switch {
	case e.Whiteout:
		return unix.Mknodat(fd, name, unix.S_IFCHR, 0)
	case e.Hardlink != "":
		u.links = append(u.links, e)
		return nil
	case e.IsDir():
		return unix.Mkdirat(fd, name, 0o700)
	case e.IsRegular():
		return u.file(fd, e)
	case e.IsSymlink():
		err = unix.Symlinkat(e.Linkname, fd, name)
	case e.Mode&fstree.ModeType == fstree.ModeSocket:
		return nil
	default:
		err = unix.Mknodat(fd, name, e.Mode&fstree.ModeType|0o600, int(unix.Mkdev(e.Major, e.Minor)))
	}
	if err != nil {
		return err
	}
	return u.attributes(fd, name, e)
}

func (u *unpacker) file(fd int, e fstree.Entry) (err error) {
	c, err := u.t.Open(u.ctx, e.Path)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // only read from
	n, err := unix.Openat(fd, e.Name(), unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(n), e.Path)
	// Hidden from io.CopyBuffer, which would not use the buffer otherwise.
	src := struct{ io.Reader }{&ctxReader{u.ctx, io.NewSectionReader(c, 0, e.Size)}}
	written, err := io.CopyBuffer(struct{ io.Writer }{f}, src, u.buf)
	if err == nil && written != e.Size {
		err = io.ErrUnexpectedEOF
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return u.attributes(fd, e.Name(), e)
}

// attributes gives name in the directory fd what e says of it, in the order in which nothing undoes what came before.
func (u *unpacker) attributes(fd int, name string, e fstree.Entry) error {
	if err := unix.Fchownat(fd, name, int(e.UID), int(e.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("change owner: %w", err)
	}
	if !e.IsSymlink() {
		if err := unix.Fchmodat(fd, name, e.Mode&0o7777, 0); err != nil {
			return fmt.Errorf("change mode: %w", err)
		}
	}
	p := "/proc/self/fd/" + strconv.Itoa(fd) + "/" + name
	for k, v := range e.Xattrs {
		if isOverlayXattr(k) {
			continue
		}
		if err := unix.Lsetxattr(p, k, []byte(v), 0); err != nil {
			return fmt.Errorf("set extended attribute %s: %w", k, err)
		}
	}
	if e.Opaque {
		if err := unix.Lsetxattr(p, u.opaque, []byte("y"), 0); err != nil {
			return fmt.Errorf("set extended attribute %s: %w", u.opaque, err)
		}
	}
	if e.ModTime.IsZero() {
		e.ModTime = time.Unix(0, 0)
	}
	t, err := unix.TimeToTimespec(e.ModTime)
	if err != nil {
		return fmt.Errorf("change time: %w", err)
	}
	if err := unix.UtimesNanoAt(fd, name, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("change time: %w", err)
	}
	return nil
}

func (u *unpacker) link(e fstree.Entry) error {
	from, err := u.open(parentOf(e.Hardlink))
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(from) }() // as above
	to, err := u.open(parentOf(e.Path))
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(to) }() // as above
	return unix.Linkat(from, path.Base(e.Hardlink), to, e.Name(), 0)
}

func (u *unpacker) finishDir(e fstree.Entry) error {
	if e.Path == "" {
		if e.Implied && !e.Opaque {
			return nil
		}
		return u.attributes(u.root, ".", e)
	}
	fd, err := u.open(parentOf(e.Path))
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }() // as above
	return u.attributes(fd, e.Name(), e)
}

func parentOf(p string) string {
	dir, _ := path.Split(p)
	return path.Clean("/" + dir)[1:]
}

// permission marks what fails for want of privilege.
func permission(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w: %w", ErrUnprivileged, err)
	}
	return err
}
