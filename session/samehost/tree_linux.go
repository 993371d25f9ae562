package samehost

import (
	"context"
	"errors"
	"fmt"
	"io"
	gofs "io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/slipwaybuild/slipway/session/filesync"
	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Tree is a directory of a client that a tree is written into, with the client's identity. What comes out of it is what package
// filesync's target on the client would have made.
type Tree struct {
	file              *os.File
	threads           *threads
	keepOwner, delete bool
}

// Close ends writing.
func (t *Tree) Close() error {
	t.threads.close()
	return t.file.Close()
}

const (
	// batchFiles and batchBytes bound what is made in one go as the client, and held in memory for that.
	batchFiles = 64
	batchBytes = 4 << 20
	// largeFile is from which size on a file is copied in pieces.
	largeFile = 1 << 20
	// treeWriters is how many batches are under way.
	treeWriters = 4
)

// Write writes a tree. It is called once. progress is told the bytes written since the last call, from several goroutines; it may be
// nil.
func (t *Tree) Write(ctx context.Context, src filesync.Tree, progress func(int64)) error {
	if progress == nil {
		progress = func(int64) {}
	}
	w := &treeWriter{t: t, src: src, progress: progress, batches: make(chan *batch, treeWriters), kept: map[string]struct{}{}, made: map[string]bool{}}
	err := w.run(ctx)
	if err != nil {
		return fmt.Errorf("write into the client's directory: %w", err)
	}
	return nil
}

// treeWriter is one writing. The walk makes directories; what is in them is made by the writers, a batch of one directory at a
// time; links to files come after that, and what is set of directories last.
type treeWriter struct {
	t        *Tree
	src      filesync.Tree
	progress func(int64)
	batches  chan *batch

	// What follows is the walk's.
	stack   []*outDir // of directories down to the one walked in; [0] is the root
	current *batch    // not given away yet
	dirs    []*types.Stat
	links   []*types.Stat
	kept    map[string]struct{} // with deletion: paths in directories that were there before
	made    map[string]bool     // with deletion: directories that were not
}

// outDir is a directory that is written into. It is closed by the last that holds it.
type outDir struct {
	path  string
	fd    int
	fresh bool // it was made here: nothing can be in it yet
	holds atomic.Int32
}

func (d *outDir) hold() *outDir { d.holds.Add(1); return d }

func (d *outDir) release() {
	if d.holds.Add(-1) == 0 {
		_ = unix.Close(d.fd) // only a place
	}
}

// batch is some entries of one directory.
type batch struct {
	dir   *outDir
	stats []*types.Stat
	size  int64
}

func (w *treeWriter) run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(w.batches)
		defer w.leave(0)
		return w.walk(gctx)
	})
	for range treeWriters {
		g.Go(func() error {
			var buf []byte
			for b := range w.batches {
				err := gctx.Err()
				if err == nil {
					err = w.make(gctx, b, &buf)
				}
				b.dir.release()
				if err != nil {
					w.drain()
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	return w.t.as(ctx, w.finish)
}

// drain lets the walk end that nobody serves any more.
func (w *treeWriter) drain() {
	for b := range w.batches {
		b.dir.release()
	}
}

// as runs f as the client.
func (t *Tree) as(ctx context.Context, f func() error) error {
	var err error
	if derr := t.threads.do(ctx, func() { err = f() }); derr != nil {
		return derr
	}
	return err
}

func (w *treeWriter) walk(ctx context.Context) error {
	if err := w.t.as(ctx, w.openRoot); err != nil {
		return err
	}
	err := w.src.Walk(ctx, func(st *types.Stat) error {
		if err := w.enter(ctx, st); err != nil {
			return fmt.Errorf("%q: %w", st.Path, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return w.flush(ctx)
}

func (w *treeWriter) openRoot() error {
	fd, err := openDirAt(int(w.t.file.Fd()), ".")
	if err != nil {
		return err
	}
	w.stack = []*outDir{(&outDir{fd: fd}).hold()}
	return nil
}

// enter takes one entry of the walk.
func (w *treeWriter) enter(ctx context.Context, st *types.Stat) error {
	if !gofs.ValidPath(st.Path) || st.Path == "." {
		return gofs.ErrInvalid
	}
	parent := path.Dir(st.Path)
	if parent == "." {
		parent = ""
	}
	for n := len(w.stack) - 1; w.stack[n].path != parent; n-- {
		if n == 0 {
			return errors.New("its directory was not told before it")
		}
		w.leave(n)
	}
	dir := w.stack[len(w.stack)-1]
	if w.t.delete && !dir.fresh {
		w.kept[st.Path] = struct{}{}
	}
	mode := gofs.FileMode(st.Mode)
	switch {
	case mode.IsDir():
		w.dirs = append(w.dirs, st)
		return w.t.as(ctx, func() error { return w.openDir(dir, st) })
	case mode&gofs.ModeSymlink == 0 && st.Linkname != "":
		w.links = append(w.links, st)
		return nil
	case mode&gofs.ModeSocket != 0:
		return nil
	}
	b := w.current
	if b != nil && (b.dir != dir || len(b.stats) >= batchFiles || b.size+st.Size > batchBytes) {
		if err := w.flush(ctx); err != nil {
			return err
		}
		b = nil
	}
	if b == nil {
		b = &batch{dir: dir.hold()}
		w.current = b
	}
	b.stats = append(b.stats, st)
	if mode.IsRegular() {
		b.size += st.Size
	}
	return nil
}

func (w *treeWriter) flush(ctx context.Context) error {
	b := w.current
	w.current = nil
	if b == nil {
		return nil
	}
	select {
	case w.batches <- b:
		return nil
	case <-ctx.Done():
		b.dir.release()
		return context.Cause(ctx)
	}
}

// leave gives up directories from the n-th on.
func (w *treeWriter) leave(n int) {
	for _, d := range w.stack[min(n, len(w.stack)):] {
		d.release()
	}
	w.stack = w.stack[:min(n, len(w.stack))]
	if n == 0 && w.current != nil {
		w.current.dir.release()
		w.current = nil
	}
}

// openDir makes a directory, or takes the one that is there. A link to one is replaced: writing through it would write somewhere else.
func (w *treeWriter) openDir(parent *outDir, st *types.Stat) error {
	name := path.Base(st.Path)
	err := unix.Mkdirat(parent.fd, name, 0o700)
	fresh := err == nil
	if errors.Is(err, unix.EEXIST) {
		fd, err := openDirAt(parent.fd, name)
		if err == nil {
			return w.push(&outDir{path: st.Path, fd: fd}, makeUsable(fd))
		}
		if errors.Is(err, unix.EACCES) {
			// There is one, and its owner may not read it: its mode is set in the end anyway.
			if err := unix.Fchmodat(parent.fd, name, 0o700, 0); err != nil {
				return err
			}
			if fd, err = openDirAt(parent.fd, name); err == nil {
				return w.push(&outDir{path: st.Path, fd: fd}, nil)
			}
		}
		if !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
			return err
		}
		if err := unix.Unlinkat(parent.fd, name, 0); err != nil {
			return err
		}
		if err := unix.Mkdirat(parent.fd, name, 0o700); err != nil {
			return err
		}
		fresh = true
	} else if err != nil {
		return err
	}
	fd, err := openDirAt(parent.fd, name)
	if err != nil {
		return err
	}
	return w.push(&outDir{path: st.Path, fd: fd, fresh: fresh}, nil)
}

func (w *treeWriter) push(d *outDir, err error) error {
	d.hold()
	if err != nil {
		d.release()
		return err
	}
	w.stack = append(w.stack, d)
	if w.t.delete && d.fresh {
		w.made[d.path] = true
	}
	return nil
}

// makeUsable lets its owner do everything in a directory, until its mode is set.
func makeUsable(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&0o700 == 0o700 {
		return nil
	}
	return unix.Fchmod(fd, st.Mode&0o7777|0o700)
}

// make makes the entries of a batch. Contents are read as who we are, and written as the client. buf is the writer's.
func (w *treeWriter) make(ctx context.Context, b *batch, buf *[]byte) error {
	data := make([][]byte, len(b.stats))
	*buf = (*buf)[:0]
	for i, st := range b.stats {
		if !gofs.FileMode(st.Mode).IsRegular() || st.Size >= largeFile {
			continue
		}
		var err error
		if data[i], err = w.read(ctx, st, buf); err != nil {
			return fmt.Errorf("%q: %w", st.Path, err)
		}
	}
	err := w.t.as(ctx, func() error {
		for i, st := range b.stats {
			if gofs.FileMode(st.Mode).IsRegular() && st.Size >= largeFile {
				continue
			}
			if err := w.put(b.dir, st, data[i]); err != nil {
				return fmt.Errorf("%q: %w", st.Path, err)
			}
		}
		return nil
	})
	for _, st := range b.stats {
		if err == nil && gofs.FileMode(st.Mode).IsRegular() && st.Size >= largeFile {
			if err = w.copy(ctx, b.dir, st, buf); err != nil {
				err = fmt.Errorf("%q: %w", st.Path, err)
			}
		}
	}
	return err
}

// read appends a small file to buf, and returns it.
func (w *treeWriter) read(ctx context.Context, st *types.Stat, buf *[]byte) ([]byte, error) {
	if st.Size == 0 {
		return nil, nil
	}
	f, err := w.src.Open(ctx, st.Path)
	if err != nil {
		return nil, err
	}
	at := len(*buf)
	// What was returned before stays where it is when this moves the buffer.
	*buf = slices.Grow(*buf, int(st.Size))[:at+int(st.Size)]
	piece := (*buf)[at : at+int(st.Size) : at+int(st.Size)]
	_, err = io.ReadFull(f, piece)
	return piece, errors.Join(err, f.Close())
}

// put makes anything but a directory or a large file.
func (w *treeWriter) put(dir *outDir, st *types.Stat, data []byte) error {
	return w.place(dir, st, func(name string) error {
		mode := gofs.FileMode(st.Mode)
		switch {
		case mode&gofs.ModeSymlink != 0:
			if err := unix.Symlinkat(st.Linkname, dir.fd, name); err != nil {
				return err
			}
			return w.t.setLink(dir.fd, name, st)
		case !mode.IsRegular():
			return w.t.mknod(dir.fd, name, st)
		}
		fd, err := createAt(dir.fd, name)
		if err != nil {
			return err
		}
		err = writeAll(fd, data)
		if err == nil {
			w.progress(int64(len(data)))
			err = w.t.setMeta(fd, st)
		}
		return errors.Join(err, unix.Close(fd))
	})
}

// copy makes a large file.
func (w *treeWriter) copy(ctx context.Context, dir *outDir, st *types.Stat, buf *[]byte) (err error) {
	src, err := w.src.Open(ctx, st.Path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	chunk := slices.Grow((*buf)[:0], largeFile)[:largeFile]
	*buf = chunk[:0]
	name := path.Base(st.Path)
	if !dir.fresh {
		name = tempName(name)
	}
	fd := -1
	err = w.t.as(ctx, func() (err error) { fd, err = createOver(dir.fd, name); return err })
	if err != nil {
		return err
	}
	for left := st.Size; left > 0 && err == nil; {
		n, rerr := io.ReadFull(src, chunk[:min(left, largeFile)])
		if rerr != nil {
			err = rerr
			break
		}
		err = w.t.as(ctx, func() error { return writeAll(fd, chunk[:n]) })
		left -= int64(n)
		w.progress(int64(n))
	}
	return w.t.as(context.WithoutCancel(ctx), func() error {
		if err == nil {
			err = w.t.setMeta(fd, st)
		}
		err = errors.Join(err, unix.Close(fd))
		if err == nil && !dir.fresh {
			err = moveOver(dir.fd, name, path.Base(st.Path))
		}
		if err != nil {
			_ = unix.Unlinkat(dir.fd, name, 0) // the error that counts is err
		}
		return err
	})
}

// place has an entry made under a temporary name and moves it into place, so that nobody sees half of it and what was there is not
// written into. Where nothing can be there it is made at once.
func (w *treeWriter) place(dir *outDir, st *types.Stat, make func(name string) error) error {
	base := path.Base(st.Path)
	if dir.fresh {
		return make(base)
	}
	name := tempName(base)
	err := make(name)
	if errors.Is(err, unix.EEXIST) {
		if err = removeAll(dir.fd, name); err == nil {
			err = make(name)
		}
	}
	if err == nil {
		err = moveOver(dir.fd, name, base)
	}
	if err != nil {
		_ = unix.Unlinkat(dir.fd, name, 0) // the error that counts is err
	}
	return err
}

// tempName keeps a temporary name within the 255 bytes a name may have.
func tempName(base string) string { return ".slipway-export-" + base[:min(len(base), 200)] }

func moveOver(dir int, from, to string) error {
	err := unix.Renameat(dir, from, dir, to)
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		if err = removeAll(dir, to); err == nil {
			err = unix.Renameat(dir, from, dir, to)
		}
	}
	return err
}

func createAt(dir int, name string) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// createOver is createAt where something may be left of before.
func createOver(dir int, name string) (int, error) {
	fd, err := createAt(dir, name)
	if errors.Is(err, unix.EEXIST) {
		if err = removeAll(dir, name); err == nil {
			fd, err = createAt(dir, name)
		}
	}
	return fd, err
}

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// finish makes links, deletes what is to be deleted, and sets what directories are, deepest first.
func (w *treeWriter) finish() error {
	for _, st := range w.links {
		if err := w.link(st); err != nil {
			return fmt.Errorf("%q: %w", st.Path, err)
		}
	}
	if w.t.delete {
		if err := w.removeOthers("."); err != nil {
			return err
		}
	}
	for _, st := range slices.Backward(w.dirs) {
		fd, err := w.t.open(st.Path)
		if err == nil {
			err = errors.Join(w.t.setMeta(fd, st), unix.Close(fd))
		}
		if err != nil {
			return fmt.Errorf("%q: %w", st.Path, err)
		}
	}
	return nil
}

// open opens a directory below the root. What was written has no links on the way.
func (t *Tree) open(p string) (int, error) {
	return openat2(int(t.file.Fd()), p, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_SYMLINKS,
	})
}

func (w *treeWriter) link(st *types.Stat) error {
	from, err := w.t.open(path.Dir(st.Linkname))
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(from) }() // only a place
	to, err := w.t.open(path.Dir(st.Path))
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(to) }() // only a place
	base := path.Base(st.Path)
	err = w.place(&outDir{fd: to}, st, func(name string) error {
		return unix.Linkat(from, path.Base(st.Linkname), to, name, 0)
	})
	// Renaming one name of a file onto another of the same file does nothing, so the temporary name may still be there.
	if uerr := unix.Unlinkat(to, tempName(base), 0); err == nil && !errors.Is(uerr, unix.ENOENT) {
		err = uerr
	}
	return err
}

// removeOthers removes what is not in the tree. Directories that were made here hold nothing else.
func (w *treeWriter) removeOthers(dir string) error {
	fd, err := w.t.open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }() // only read
	list, err := (&walk{dents: make([]byte, 32<<10)}).read(fd)
	if err != nil {
		return err
	}
	for _, e := range list {
		p := path.Join(dir, e.name)
		if _, ok := w.kept[p]; !ok {
			if err := removeAll(fd, e.name); err != nil {
				return fmt.Errorf("remove %q: %w", p, err)
			}
		} else if w.isOld(p) {
			if err := w.removeOthers(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// isOld says whether a directory of the tree was there before.
func (w *treeWriter) isOld(p string) bool {
	_, found := slices.BinarySearchFunc(w.dirs, p, func(st *types.Stat, p string) int { return comparePaths(st.Path, p) })
	return found && !w.made[p]
}

// comparePaths orders paths as a walk does.
func comparePaths(a, b string) int {
	return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
}

// removeAll removes a name and what is below it, following nothing.
func removeAll(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return err
	}
	fd, oerr := openDirAt(dir, name)
	if errors.Is(oerr, unix.ENOTDIR) {
		return err
	}
	if oerr != nil {
		return oerr
	}
	list, rerr := (&walk{dents: make([]byte, 32<<10)}).read(fd)
	for _, e := range list {
		if rerr == nil {
			rerr = removeAll(fd, e.name)
		}
	}
	if err := errors.Join(rerr, unix.Close(fd)); err != nil {
		return err
	}
	if err := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}
