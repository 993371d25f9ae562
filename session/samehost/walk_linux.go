package samehost

import (
	"context"
	"errors"
	"fmt"
	"io"
	gofs "io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"
	"unsafe"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"
)

// Selection is what of a directory is wanted, in the terms of file sync.
type Selection struct {
	Include, Exclude, Follow []string
	// Plain says of a file in a known state that it had no extended attributes, so that it need not be asked again. May be nil.
	Plain func(State) bool
}

// Entry is one entry that was selected.
type Entry struct {
	// Stat is as file sync would send it. It is the receiver's.
	Stat *types.Stat
	// State is that of a regular file, zero if it cannot be relied on or for anything else.
	State State
	// Plain says that there are no extended attributes.
	Plain bool
}

// Select calls fn with the entries in walk order, just as package filesync's provider on the client would send them.
func (d *Dir) Select(ctx context.Context, s Selection, fn func(Entry) error) error {
	return d.Do(ctx, func(Reader) error {
		base := &dirFS{d: d, plain: s.Plain}
		opt := &fsutil.FilterOpt{IncludePatterns: s.Include, ExcludePatterns: s.Exclude, FollowPaths: s.Follow}
		if d.resetOwner {
			opt.Map = func(_ string, st *types.Stat) fsutil.MapResult {
				st.Uid, st.Gid = 0, 0
				return fsutil.MapResultKeep
			}
		}
		filtered, err := fsutil.NewFilterFS(base, opt)
		if err != nil {
			return err
		}
		return fsutil.WithHardlinkReset(filtered).Walk(ctx, "/", func(p string, e gofs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			fi, err := e.Info()
			if err != nil {
				return err
			}
			st, ok := fi.Sys().(*types.Stat)
			if !ok {
				return fmt.Errorf("%s: no stat but %T", p, fi.Sys())
			}
			if gofs.FileMode(st.Mode)&gofs.ModeSocket != 0 {
				return nil // nothing without who listens
			}
			out := Entry{Stat: st}
			if last := base.last; last.path == p && gofs.FileMode(st.Mode).IsRegular() {
				out.State, out.Plain = last.state, last.plain
			}
			return fn(out)
		})
	})
}

// dirFS is the directory as an [fsutil.FS]. It belongs to one thread, which must be one of the client's.
type dirFS struct {
	d     *Dir
	plain func(State) bool
	// last is what is known of the regular file looked at last: the filters pass on nothing but its Stat.
	last struct {
		path  string
		state State
		plain bool
	}
}

// Open is not used: contents are read by who selected.
func (f *dirFS) Open(string) (io.ReadCloser, error) { return nil, errors.ErrUnsupported }

type inode struct{ dev, ino uint64 }

// Walk is filepath.WalkDir below the descriptor. Of what vanishes meanwhile only that itself is left out.
func (f *dirFS) Walk(ctx context.Context, target string, fn gofs.WalkDirFunc) error {
	w := &walk{fs: f, ctx: ctx, fn: fn, links: map[inode]string{}, names: make([]byte, 64<<10), dents: make([]byte, 32<<10)}
	err := w.start(path.Clean(filepath.ToSlash(target)))
	if errors.Is(err, filepath.SkipDir) || errors.Is(err, filepath.SkipAll) {
		return nil
	}
	return err
}

type walk struct {
	fs    *dirFS
	ctx   context.Context
	fn    gofs.WalkDirFunc
	links map[inode]string // first name of each file that has several
	names []byte           // buffer for names of attributes
	dents []byte           // buffer for entries of a directory
}

func (w *walk) start(target string) error {
	root := int(w.fs.d.file.Fd())
	target = strings.TrimPrefix(target, "/")
	if target == "" || target == "." {
		// A descriptor of its own: reading a directory moves in it.
		fd, err := openDirAt(root, ".")
		if err != nil {
			return &os.PathError{Op: "open", Path: ".", Err: err}
		}
		err = w.children(fd, "")
		return errors.Join(err, unix.Close(fd))
	}
	dir, err := openat2(root, path.Dir(target), &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.ELOOP) {
			err = unix.ENOENT // where it leads is not in the tree
		}
		return w.told(w.fn(target, nil, &os.PathError{Op: "lstat", Path: target, Err: err}), err, false)
	}
	err = w.visit(&entry{w: w, dir: dir, rel: target, name: path.Base(target), first: true})
	return errors.Join(err, unix.Close(dir))
}

// told is what an answer of fn means where the entry vanished: filters turn "not there" into SkipDir, which for a file would mean the
// rest of its directory.
func (w *walk) told(answer, cause error, dir bool) error {
	if isGone(cause) && (errors.Is(answer, filepath.SkipDir) || isGone(answer)) {
		if dir {
			return filepath.SkipDir
		}
		return nil
	}
	if isGone(answer) {
		return filepath.SkipDir
	}
	return answer
}

func isGone(err error) bool {
	return err != nil && (errors.Is(err, gofs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR))
}

func openDirAt(dir int, name string) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// children visits what is in the directory fd, which is rel.
func (w *walk) children(fd int, rel string) error {
	list, err := w.read(fd)
	if err != nil {
		return &os.PathError{Op: "readdir", Path: rel, Err: err}
	}
	for _, e := range list {
		p := e.name
		if rel != "" {
			p = rel + "/" + e.name
		}
		if err := w.visit(&entry{w: w, dir: fd, rel: p, name: e.name, typ: e.typ}); err != nil {
			if errors.Is(err, filepath.SkipDir) {
				return nil
			}
			return err
		}
	}
	return nil
}

// visit tells fn of an entry, and goes into it.
func (w *walk) visit(e *entry) error {
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	if typ := e.typ; typ == unix.DT_UNKNOWN || typ == unix.DT_DIR {
		if err := e.look(); err != nil {
			if typ == unix.DT_UNKNOWN {
				return w.told(w.fn(e.rel, nil, err), err, false)
			}
			return w.told(err, err, false)
		}
	}
	if !e.IsDir() {
		return w.told(w.fn(e.rel, e, nil), e.err, false)
	}
	return w.directory(e)
}

func (w *walk) directory(e *entry) error {
	if err := w.fn(e.rel, e, nil); err != nil {
		if errors.Is(err, filepath.SkipDir) || isGone(err) {
			return nil
		}
		return err
	}
	fd, err := openDirAt(e.dir, e.name)
	if err == nil {
		err = w.children(fd, e.rel)
		return errors.Join(err, unix.Close(fd))
	}
	if err := error(&os.PathError{Op: "open", Path: e.rel, Err: err}); !isGone(err) {
		if err = w.fn(e.rel, e, err); err != nil && !errors.Is(err, filepath.SkipDir) {
			return err
		}
	}
	return nil
}

type dirent struct {
	name string
	typ  byte
}

// read lists a directory, sorted by name.
func (w *walk) read(fd int) ([]dirent, error) {
	var list []dirent
	for {
		n, err := unix.Getdents(fd, w.dents)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		for b := w.dents[:n]; len(b) > 0; {
			d := (*unix.Dirent)(unsafe.Pointer(&b[0]))
			name := b[unsafe.Offsetof(d.Name):d.Reclen]
			if i := slices.Index(name, 0); i >= 0 {
				name = name[:i]
			}
			if s := string(name); s != "." && s != ".." {
				list = append(list, dirent{s, d.Type})
			}
			b = b[d.Reclen:]
		}
	}
	slices.SortFunc(list, func(a, b dirent) int { return strings.Compare(a.name, b.name) })
	return list, nil
}

// entry is an entry that is looked at when someone wants to know more than its name; but for directories and the first it is valid
// only while the walk is at it.
type entry struct {
	w         *walk
	dir       int
	rel, name string
	typ       byte
	raw       *unix.Stat_t
	first     bool        // it is what the walk begins with, of which is asked when the walk is over
	stat      *types.Stat // of a directory, or the first
	err       error       // of Info
}

func (e *entry) Name() string { return e.name }

func (e *entry) IsDir() bool { return e.typ == unix.DT_DIR }

// Type implements fs.DirEntry.
func (e *entry) Type() gofs.FileMode { return modeOf(uint32(e.typ) << 12).Type() }

// look asks the kernel.
func (e *entry) look() error {
	var st unix.Stat_t
	for {
		err := unix.Fstatat(e.dir, e.name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "lstat", Path: e.rel, Err: err}
		}
		break
	}
	e.raw, e.typ = &st, byte(st.Mode>>12&0xf)
	if e.IsDir() || e.first {
		var err error
		e.stat, err = e.describe()
		return err
	}
	return nil
}

// Info implements fs.DirEntry; Sys gives a *types.Stat that the caller may change.
func (e *entry) Info() (gofs.FileInfo, error) {
	if e.stat != nil {
		return &fsutil.StatInfo{Stat: e.stat.CloneVT()}, nil
	}
	var st *types.Stat
	if e.raw == nil {
		e.err = e.look()
	}
	if e.err == nil {
		st, e.err = e.describe()
	}
	if e.err != nil {
		return nil, e.err
	}
	return &fsutil.StatInfo{Stat: st}, nil
}

func (e *entry) describe() (*types.Stat, error) {
	if !utf8.ValidString(e.rel) {
		return nil, fmt.Errorf("%q: name is not valid UTF-8", e.rel)
	}
	raw := e.raw
	mode := modeOf(raw.Mode)
	st := &types.Stat{Path: e.rel, Mode: uint32(mode), ModTime: raw.Mtim.Nano(), Uid: raw.Uid, Gid: raw.Gid}
	if mode.IsRegular() {
		return st, e.file(st)
	}
	if _, err := e.xattrs(st); err != nil || mode.IsDir() {
		return st, err
	}
	st.Size = raw.Size
	switch {
	case mode&gofs.ModeSymlink != 0:
		var err error
		st.Linkname, err = readlink(e.dir, e.name, raw.Size)
		if err != nil {
			err = &os.PathError{Op: "readlink", Path: e.rel, Err: err}
		}
		return st, err
	case mode&gofs.ModeDevice != 0:
		st.Devmajor, st.Devminor = int64(unix.Major(raw.Rdev)), int64(unix.Minor(raw.Rdev))
	}
	e.link(st)
	return st, nil
}

// file describes a regular file.
func (e *entry) file(st *types.Stat) error {
	st.Size = e.raw.Size
	s := stateOf(e.raw)
	last := &e.w.fs.last
	last.path, last.state, last.plain = e.rel, State{}, false
	if e.w.fs.d.isStable(s.Dev, e.dir) {
		last.state = s
		last.plain = e.w.fs.plain != nil && e.w.fs.plain(s)
	}
	if !last.plain {
		var err error
		if last.plain, err = e.xattrs(st); err != nil {
			return err
		}
	}
	e.link(st)
	return nil
}

// link makes the second and further names of a file links to the first.
func (e *entry) link(st *types.Stat) {
	if e.raw.Nlink < 2 {
		return
	}
	key := inode{uint64(e.raw.Dev), e.raw.Ino} //nolint:unconvert // differs by architecture
	if first, ok := e.w.links[key]; ok {
		st.Linkname = first
	} else {
		e.w.links[key] = e.rel
	}
}

// xattrs adds extended attributes, and says whether there are none. There is no call for them relative to a descriptor on most kernels,
// but a name below a descriptor is a path as well.
func (e *entry) xattrs(st *types.Stat) (none bool, err error) {
	full := "/proc/self/fd/" + strconv.Itoa(e.dir) + "/" + e.name
	n, err := unix.Llistxattr(full, e.w.names)
	if errors.Is(err, unix.ENOTSUP) || n == 0 && err == nil {
		return true, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "list extended attributes", Path: e.rel, Err: err}
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(e.w.names[:n]), "\x00"), "\x00") {
		val, ok := lgetxattr(full, name)
		if !ok {
			continue // not readable by this user, or gone: as if it were not there
		}
		if st.Xattrs == nil {
			st.Xattrs = map[string][]byte{}
		}
		st.Xattrs[name] = val
	}
	return false, nil
}

func lgetxattr(full, name string) ([]byte, bool) {
	buf := make([]byte, 256)
	for range 4 { // it may grow between the calls
		n, err := unix.Lgetxattr(full, name, buf)
		if err == nil {
			return buf[:n], true
		}
		if !errors.Is(err, unix.ERANGE) {
			return nil, false
		}
		if n, err = unix.Lgetxattr(full, name, nil); err != nil {
			return nil, false
		}
		buf = make([]byte, n)
	}
	return nil, false
}

func readlink(dir int, name string, size int64) (string, error) {
	for n := max(size+1, 128); n <= 1<<16; n *= 2 {
		buf := make([]byte, n)
		m, err := unix.Readlinkat(dir, name, buf)
		if err != nil {
			return "", err
		}
		if int64(m) < n {
			return string(buf[:m]), nil
		}
	}
	return "", unix.ENAMETOOLONG
}

// modeOf turns the bits of stat(2) into Go's.
func modeOf(m uint32) gofs.FileMode {
	mode := gofs.FileMode(m & 0o777)
	switch m & unix.S_IFMT {
	case unix.S_IFDIR:
		mode |= gofs.ModeDir
	case unix.S_IFLNK:
		mode |= gofs.ModeSymlink
	case unix.S_IFIFO:
		mode |= gofs.ModeNamedPipe
	case unix.S_IFSOCK:
		mode |= gofs.ModeSocket
	case unix.S_IFBLK:
		mode |= gofs.ModeDevice
	case unix.S_IFCHR:
		mode |= gofs.ModeDevice | gofs.ModeCharDevice
	}
	if m&unix.S_ISUID != 0 {
		mode |= gofs.ModeSetuid
	}
	if m&unix.S_ISGID != 0 {
		mode |= gofs.ModeSetgid
	}
	if m&unix.S_ISVTX != 0 {
		mode |= gofs.ModeSticky
	}
	return mode
}
