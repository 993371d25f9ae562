package local

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/session/samehost"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"golang.org/x/sys/unix"
)

// hostView is a scanned directory as a tree: entries and digests are those of the scan, contents are read when they are asked for, and
// must be what was digested. It is an [fstree.Digester].
type hostView struct {
	dir   *samehost.Dir
	spool *spool
	files []hostFile

	once sync.Once
	at   map[string]int32   // place in files by path
	kids map[string][]int32 // by path of the directory

	// What follows says whether a copy of the whole is called for; see [keeper].
	active atomic.Int32 // files open
	last   atomic.Int64 // when one was opened or closed last, in nanoseconds since 1970
	left   atomic.Int64 // files that nobody has read to the end
	copied atomic.Pointer[fstree.Tree]
	copy   *layers.Ref // of copied; released by close
	broken atomic.Pointer[changedError]
}

func newHostView(s *scan) *hostView {
	v := &hostView{dir: s.dir, spool: s.spool, files: s.files}
	for i := range v.files {
		if v.files[i].hasContent() && v.files[i].Size > 0 && v.files[i].kept == 0 {
			v.left.Add(1)
		}
	}
	v.last.Store(time.Now().UnixNano())
	return v
}

func (v *hostView) close() error {
	err := errors.Join(v.spool.close(), v.dir.Close())
	if v.copy != nil {
		err = errors.Join(err, v.copy.Release())
	}
	return err
}

// changedError is a file that is not any more what the build was told it is.
type changedError struct {
	path string
	why  string
}

func (e *changedError) Error() string {
	return fmt.Sprintf("%q changed while the build was using it (%s): run the build again", e.path, e.why)
}

// Unwrap makes it an [fstree.ErrChanged].
func (e *changedError) Unwrap() error { return fstree.ErrChanged }

func (v *hostView) changed(f *hostFile, why string) error {
	err := &changedError{f.Path, why}
	v.broken.CompareAndSwap(nil, err)
	return err
}

func (v *hostView) index() {
	v.once.Do(func() {
		v.at, v.kids = make(map[string]int32, len(v.files)), map[string][]int32{}
		for i := range v.files {
			p := v.files[i].Path
			v.at[p] = int32(i)
			dir := ""
			if n := len(p) - len(v.files[i].Name()) - 1; n > 0 {
				dir = p[:n]
			}
			v.kids[dir] = append(v.kids[dir], int32(i)) // walk order is sorted
		}
	})
}

func (v *hostView) find(op, path string) (*hostFile, error) {
	v.index()
	i, ok := v.at[path]
	if !ok {
		return nil, &fs.PathError{Op: op, Path: path, Err: fs.ErrNotExist}
	}
	return &v.files[i], nil
}

// content is the file that has the contents of f.
func (v *hostView) content(op, path string) (*hostFile, error) {
	f, err := v.find(op, path)
	if err == nil && f.Hardlink != "" {
		f, err = v.find(op, f.Hardlink)
	}
	if err == nil && !f.IsRegular() {
		err = &fs.PathError{Op: op, Path: path, Err: fstree.ErrNotRegular}
	}
	return f, err
}

// Stat implements [fstree.Tree]. The root is not part of what is transferred.
func (v *hostView) Stat(_ context.Context, path string) (fstree.Entry, error) {
	if path == "" {
		return fstree.Entry{Mode: fstree.ModeDir | 0o755, ModTime: time.Unix(0, 0).UTC(), Implied: true}, nil
	}
	f, err := v.find("stat", path)
	if err != nil {
		return fstree.Entry{}, err
	}
	return f.Entry, nil
}

// ReadDir implements [fstree.Tree].
func (v *hostView) ReadDir(_ context.Context, path string) ([]fstree.Entry, error) {
	if path != "" {
		f, err := v.find("readdir", path)
		if err != nil {
			return nil, err
		}
		if !f.IsDir() {
			return nil, &fs.PathError{Op: "readdir", Path: path, Err: fstree.ErrNotDir}
		}
	}
	v.index()
	kids := v.kids[path]
	list := make([]fstree.Entry, len(kids))
	for i, k := range kids {
		list[i] = v.files[k].Entry
	}
	return list, nil
}

// FileDigest implements [fstree.Digester].
func (v *hostView) FileDigest(_ context.Context, path string) (digest.Digest, bool, error) {
	f, err := v.content("digest", path)
	if err != nil {
		return "", false, err
	}
	return digest.NewDigestFromBytes(digest.SHA256, f.sum[:]), true, nil
}

// wholeFile is how large a file may be to be read and checked as a whole.
const wholeFile = 1 << 20

// Open implements [fstree.Tree].
func (v *hostView) Open(ctx context.Context, path string) (fstree.Content, error) {
	f, err := v.content("open", path)
	if err != nil {
		return nil, err
	}
	if f.Size == 0 {
		return wholeContent{bytes.NewReader(nil)}, nil
	}
	if f.kept > 0 {
		return wholeContent{io.NewSectionReader(v.spool.file, f.kept-1, f.Size)}, nil
	}
	if t := v.copied.Load(); t != nil {
		return (*t).Open(ctx, f.Path)
	}
	if f.Size <= wholeFile {
		return v.read(ctx, f)
	}
	return v.open(ctx, f)
}

// wholeContent needs no check, or had it.
type wholeContent struct{ section }

type section interface {
	io.ReaderAt
	Size() int64
}

func (wholeContent) Close() error { return nil }

func (v *hostView) touch(active int32) {
	v.active.Add(active)
	v.last.Store(time.Now().UnixNano())
}

// read reads a whole file.
func (v *hostView) read(ctx context.Context, f *hostFile) (fstree.Content, error) {
	v.touch(1)
	defer v.touch(-1)
	// One more byte, to see that the file ends.
	buf := make([]byte, f.Size+1)
	var n int
	err := v.dir.Do(ctx, func(r samehost.Reader) error {
		fd, _, err := r.Open(f.Path)
		if err != nil {
			return err
		}
		n, err = pread(fd, buf, 0)
		return errors.Join(err, unix.Close(fd))
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, v.changed(f, "it is gone")
	case err != nil:
		return nil, err
	case int64(n) != f.Size:
		return nil, v.changed(f, "it has another size")
	case sha256.Sum256(buf[:n]) != f.sum:
		return nil, v.changed(f, "it has other contents")
	}
	v.left.Add(-1)
	return wholeContent{bytes.NewReader(buf[:n])}, nil
}

// open opens a large file.
func (v *hostView) open(ctx context.Context, f *hostFile) (fstree.Content, error) {
	c := &hostContent{v: v, f: f, h: sha256.New()}
	err := v.dir.Do(ctx, func(r samehost.Reader) (err error) {
		c.fd, c.state, err = r.Open(f.Path)
		return err
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, v.changed(f, "it is gone")
	case err != nil:
		return nil, err
	case c.state.Size != f.Size:
		return nil, errors.Join(v.changed(f, "it has another size"), unix.Close(c.fd))
	}
	v.touch(1)
	return c, nil
}

// hostContent is a large file of which pieces are read. Read from its beginning to its end, it is digested on the way. Read in any
// other order, it has to be in the state in which it was digested before.
type hostContent struct {
	v     *hostView
	f     *hostFile
	fd    int
	state samehost.State // when it was opened

	mu   sync.Mutex // guards what follows
	h    hash.Hash  // of what was read in order; nil if it was not
	next int64      // where it goes on
	over bool
}

// Size implements [fstree.Content].
func (c *hostContent) Size() int64 { return c.f.Size }

// ReadAt implements [io.ReaderAt].
func (c *hostContent) ReadAt(p []byte, off int64) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return 0, fs.ErrClosed
	}
	if off < 0 || off >= c.f.Size {
		return 0, io.EOF
	}
	want := min(int64(len(p)), c.f.Size-off)
	n, err := pread(c.fd, p[:want], off)
	if err != nil {
		return n, &fs.PathError{Op: "read", Path: c.f.Path, Err: err}
	}
	if int64(n) < want {
		return 0, c.v.changed(c.f, "it has another size")
	}
	if err := c.check(p[:n], off); err != nil {
		return 0, err
	}
	if off+int64(n) == c.f.Size && n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// check makes sure of what was read. mu is held.
func (c *hostContent) check(b []byte, off int64) error {
	if c.h != nil && off == c.next {
		c.h.Write(b)
		c.next += int64(len(b))
		if c.next == c.f.Size {
			if [sha256.Size]byte(c.h.Sum(nil)) != c.f.sum {
				return c.v.changed(c.f, "it has other contents")
			}
			c.v.left.Add(-1)
		}
		return nil
	}
	c.h = nil
	now, err := samehost.StateOf(c.fd)
	if err != nil {
		return err
	}
	if now != c.f.state {
		return c.v.changed(c.f, "it was written to")
	}
	return nil
}

// Close implements [io.Closer].
func (c *hostContent) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return fs.ErrClosed
	}
	c.over = true
	c.v.touch(-1)
	return unix.Close(c.fd)
}

// sum is the digest that names the whole, the same as that of what a session transfers.
func (v *hostView) sum() digest.Digest {
	s := newContentSum()
	for i := range v.files {
		s.add(&v.files[i].Entry, v.files[i].sum)
	}
	return s.digest()
}

var _ fstree.Digester = (*hostView)(nil)
