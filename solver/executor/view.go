package executor

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symlinks one path may go through, as in the kernel.
const maxLinks = 40

// view is the file system as a step will see it: a root and what will be mounted over it, in order. It is not safe for
// concurrent use.
type view struct {
	mounts []viewMount
}

// viewMount is one mount of a view.
type viewMount struct {
	// dest is where it is mounted, free of symlinks.
	dest string
	// host is the directory or file shown; empty if the runtime makes it (proc, tmpfs), so that nothing can be said about what
	// is inside.
	host string
	// stubs takes note of what is made inside; nil if nothing may be made.
	stubs *stubs
}

// errRuntimeMade says that a path leads into something the runtime will make.
var errRuntimeMade = errors.New("inside a mount made by the runtime")

// place is an existing file in a view.
type place struct {
	// path is absolute in the view and free of symlinks.
	path string
	// mount is the index of the mount it lies in, rel its path in there.
	mount int
	rel   string
	fd    int // O_PATH
}

func (p *place) close() { _ = unix.Close(p.fd) } // an O_PATH descriptor has nothing to lose

func (p *place) stat() (unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Fstat(p.fd, &st)
	return st, err
}

// maker makes the missing name in the directory at; last says that the walk ends there. It returns fs.ErrNotExist to leave it
// missing.
type maker func(at *place, name string, last bool) error

func notMade(*place, string, bool) error { return fs.ErrNotExist }

// walk finds p in the view, following symlinks inside it. mk is called for each name that is missing; rest is what remains
// after the place where it gave up. The error is then fs.ErrNotExist, or errRuntimeMade; the place is valid with both.
func (v *view) walk(p string, mk maker) (at *place, rest []string, err error) {
	w := walker{v: v, todo: split(p)}
	if err := w.reset(); err != nil {
		return nil, nil, err
	}
	for len(w.todo) > 0 {
		if err := w.step(mk); err != nil {
			return w.stop(p, err)
		}
	}
	return w.take(), nil, nil
}

// walker is the state of one walk: the places passed since the root, the last one current, so that ".." needs no name.
type walker struct {
	v     *view
	stack []*place
	todo  []string
	links int
}

func (w *walker) cur() *place { return w.stack[len(w.stack)-1] }

func (w *walker) reset() error {
	w.drop(0)
	at, err := w.v.enter(w.v.mountAt("/"))
	if err != nil {
		return err
	}
	w.stack = append(w.stack, at)
	return nil
}

func (w *walker) drop(keep int) {
	for _, at := range w.stack[keep:] {
		at.close()
	}
	w.stack = w.stack[:keep]
}

// take returns the current place and closes the others.
func (w *walker) take() *place {
	at := w.cur()
	w.stack = w.stack[:len(w.stack)-1]
	w.drop(0)
	return at
}

func (w *walker) stop(p string, err error) (*place, []string, error) {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errRuntimeMade) {
		return w.take(), w.todo, err
	}
	w.drop(0)
	return nil, nil, &fs.PathError{Op: "find", Path: p, Err: err}
}

// step takes one name off todo. On an error todo still starts with it.
func (w *walker) step(mk maker) error {
	name := w.todo[0]
	if name == ".." {
		if len(w.stack) > 1 {
			w.drop(len(w.stack) - 1)
		}
		w.todo = w.todo[1:]
		return nil
	}
	cur := w.cur()
	next := path.Join(cur.path, name)
	if i := w.v.mountAt(next); i >= 0 {
		if w.v.mounts[i].host == "" {
			return errRuntimeMade
		}
		at, err := w.v.enter(i)
		if err != nil {
			return err
		}
		w.push(at)
		return nil
	}
	fd, err := openIn(cur.fd, name)
	if errors.Is(err, fs.ErrNotExist) {
		if err := mk(cur, name, len(w.todo) == 1); err != nil {
			return err
		}
		fd, err = openIn(cur.fd, name)
	}
	if err != nil {
		return err
	}
	at := &place{path: next, mount: cur.mount, rel: path.Join(cur.rel, name), fd: fd}
	st, err := at.stat()
	if err != nil {
		at.close()
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		defer at.close()
		return w.follow(at)
	}
	w.push(at)
	return nil
}

func (w *walker) push(at *place) {
	w.stack = append(w.stack, at)
	w.todo = w.todo[1:]
}

func (w *walker) follow(link *place) error {
	if w.links++; w.links > maxLinks {
		return unix.ELOOP
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(link.fd, "", buf)
	if err != nil {
		return err
	}
	target := string(buf[:n])
	w.todo = append(split(target), w.todo[1:]...)
	if strings.HasPrefix(target, "/") {
		return w.reset()
	}
	return nil
}

func openIn(dir int, name string) (int, error) {
	return unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// mountAt returns the last mount on dest: it hides the earlier ones.
func (v *view) mountAt(dest string) int {
	for i, m := range slices.Backward(v.mounts) {
		if m.dest == dest {
			return i
		}
	}
	return -1
}

// enter opens the root of a mount. Its host path is ours and is free of symlinks.
func (v *view) enter(i int) (*place, error) {
	m := v.mounts[i]
	fd, err := unix.Open(m.host, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: m.host, Err: err}
	}
	return &place{path: m.dest, mount: i, fd: fd}, nil
}

// host is where a place is outside.
func (v *view) host(at *place) string { return path.Join(v.mounts[at.mount].host, at.rel) }

// readFile reads a regular file of at most limit bytes. Opening it by descriptor means that what was looked at is what is read,
// and that neither a device nor a fifo is ever opened.
func (v *view) readFile(p string, limit int64) ([]byte, error) {
	at, _, err := v.walk(p, notMade)
	if at != nil {
		defer at.close()
	}
	if err != nil {
		return nil, err
	}
	st, err := at.stat()
	if err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("%s: not a regular file", p)
	}
	if st.Size > limit {
		return nil, fmt.Errorf("%s: %d bytes is more than the limit of %d", p, st.Size, limit)
	}
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", at.fd))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	return io.ReadAll(io.LimitReader(f, limit))
}

// split cuts a path into names, without empty ones and dots.
func split(p string) []string {
	names := strings.Split(p, "/")
	return slices.DeleteFunc(names, func(s string) bool { return s == "" || s == "." })
}

// resolveSelector finds p inside the directory root, following symlinks inside it, and returns its path outside. ".." does
// not lead out of root.
func resolveSelector(root, p string) (string, error) {
	v := &view{mounts: []viewMount{{dest: "/", host: root}}}
	at, _, err := v.walk(p, notMade)
	if at != nil {
		defer at.close()
	}
	if err != nil {
		return "", err
	}
	return v.host(at), nil
}
