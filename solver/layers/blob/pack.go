package blob

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"golang.org/x/sync/errgroup"
)

// Pack makes a blob of the entries of src in one pass. The tar in it is canonical: equal entries give equal bytes. Sockets and
// implied directories are not in it. f is as for [Index]. An error that is about an entry is an [EntryError].
//
// Small files are read ahead, several at a time, so functions that open content must be safe for concurrent use with each
// other and with Next.
func Pack(ctx context.Context, src fstree.Source, f *os.File) (Summary, error) {
	s := newSink(f)
	defer s.abort()
	g, gctx := errgroup.WithContext(ctx)
	p := &packer{assembly: newAssembly(Limits{}), sink: s, ctx: gctx, buffers: newBuffers()}
	items := readAhead(gctx, g, src, p.buffers)
	g.Go(func() error { return p.run(items) })
	if err := g.Wait(); err != nil {
		return Summary{}, err
	}
	sum, err := s.sum()
	if err != nil {
		return Summary{}, err
	}
	return finish(p.assembly, f, sum, s.size, align(headerSize+s.size, blockSize))
}

// A packer enters entries into an assembly and writes their tar.
type packer struct {
	*assembly
	sink *sink
	ctx  context.Context
	buf  []byte // the chunk being filled
	hdr  []byte // room for headers
	last string
	any  bool

	buffers *sync.Pool
}

func (p *packer) run(items <-chan *item) error {
	for it := range items {
		err := it.wait(p.ctx)
		if err == nil {
			err = p.entry(it)
		}
		it.release(p.buffers)
		if err != nil {
			return err
		}
	}
	if err := p.ctx.Err(); err != nil {
		return err
	}
	// The end marker.
	if err := p.write(make([]byte, 2*blockSize)); err != nil {
		return err
	}
	if len(p.buf) > 0 {
		p.sink.put(p.buf)
	}
	return nil
}

// entry adds one entry.
func (p *packer) entry(it *item) error {
	e := &it.Entry
	if err := p.check(e); err != nil {
		return err
	}
	switch {
	case e.Whiteout:
		return p.whiteoutEntry(e)
	case e.Mode&fstree.ModeType == fstree.ModeSocket:
		return nil
	case e.Hardlink != "":
		return p.linkEntry(e)
	}
	i, err := entryInode(e, p.limits)
	if err != nil {
		return err
	}
	if e.IsDir() {
		return p.dirEntry(e, i)
	}
	if err := p.enter(e, i); err != nil {
		return err
	}
	h := headerOf(e.Path, i)
	h.major, h.minor, h.xattrs = e.Major, e.Minor, cleanXattrs(e.Xattrs)
	if err := p.header(h); err != nil {
		return err
	}
	if !e.IsRegular() {
		return nil
	}
	i.data = headerSize + p.pos()
	return p.content(it)
}

// check holds the source to what it promises: without an order there is no canonical tar.
func (p *packer) check(e *fstree.Entry) error {
	if p.any && fstree.Compare(p.last, e.Path) >= 0 {
		return entryError(e.Path, ErrBadEntry, "comes after %q", shorten(p.last))
	}
	p.any, p.last = true, e.Path
	if c, err := clean(e.Path); err != nil || c != e.Path {
		return entryError(e.Path, ErrUnsafePath, "not a clean path")
	}
	if strings.HasPrefix(e.Name(), whiteoutPrefix) {
		return entryError(e.Path, ErrUnsafePath, "name would mean a whiteout")
	}
	return nil
}

// enter puts i into the assembly, just where e says.
func (p *packer) enter(e *fstree.Entry, i *inode) error {
	n, err := p.put(e.Path, e.Path, i)
	if err != nil {
		return err
	}
	return p.straight(n, e)
}

// straight refuses an entry that ended elsewhere because some parent of it is a symlink.
func (p *packer) straight(n *node, e *fstree.Entry) error {
	if n.path() != e.Path {
		return entryError(e.Path, ErrBadEntry, "lies inside a symlink")
	}
	return nil
}

func (p *packer) whiteoutEntry(e *fstree.Entry) error {
	if e.Path == "" {
		return entryError(e.Path, ErrBadEntry, "whiteout of the root")
	}
	if err := p.enter(e, &inode{mode: fstree.ModeChar}); err != nil {
		return err
	}
	at := len(e.Path) - len(e.Name())
	return p.header(tarHeader{name: e.Path[:at] + whiteoutPrefix + e.Path[at:], flag: '0'})
}

func (p *packer) dirEntry(e *fstree.Entry, i *inode) error {
	var n *node
	var err error
	if e.Implied {
		n, err = p.dir(e.Path, e.Path)
	} else {
		n, err = p.put(e.Path, e.Path, i)
	}
	if err != nil {
		return err
	}
	if err := p.straight(n, e); err != nil {
		return err
	}
	prefix := e.Path + "/"
	if e.Path == "" {
		prefix = "./"
	}
	if !e.Implied {
		h := headerOf(prefix, i)
		h.xattrs = cleanXattrs(e.Xattrs)
		if err := p.header(h); err != nil {
			return err
		}
	}
	if !e.Opaque {
		return nil
	}
	n.opaque = true
	return p.header(tarHeader{name: strings.TrimPrefix(prefix, "./") + opaqueName, flag: '0'})
}

func (p *packer) linkEntry(e *fstree.Entry) error {
	if err := p.link(e.Path, e.Hardlink, e.Path); err != nil {
		return err
	}
	n, err := p.find(e.Path, e.Path)
	if err != nil {
		return err
	}
	if err := p.straight(n, e); err != nil {
		return err
	}
	// Who unpacks a tar sets owner and time of every name it meets, so the link must say them, too.
	h := headerOf(e.Path, n.ino)
	h.flag, h.size, h.linkname = '1', 0, e.Hardlink
	return p.header(h)
}

func headerOf(name string, i *inode) tarHeader {
	h := tarHeader{
		name: name,
		flag: tarFlags[i.mode&fstree.ModeType],
		mode: i.mode & 0o7777,
		uid:  i.uid,
		gid:  i.gid,
		sec:  i.sec,
		nsec: i.nsec,
	}
	switch i.mode & fstree.ModeType {
	case fstree.ModeRegular:
		h.size = i.size
	case fstree.ModeSymlink:
		h.linkname = i.linkname
	}
	return h
}

// entryInode makes of an entry what the layer stores.
func entryInode(e *fstree.Entry, l Limits) (*inode, error) {
	i := &inode{mode: e.Mode & (fstree.ModeType | 0o7777), uid: e.UID, gid: e.GID}
	if !e.ModTime.IsZero() {
		i.sec, i.nsec = e.ModTime.Unix(), uint32(e.ModTime.Nanosecond())
	}
	var err error
	if i.xattrs, err = xattrs(e.Xattrs, l.XattrBytes, e.Path); err != nil {
		return nil, err
	}
	switch i.mode & fstree.ModeType {
	case fstree.ModeDir, fstree.ModeFifo:
	case fstree.ModeRegular:
		if i.size = e.Size; i.size < 0 {
			return nil, entryError(e.Path, ErrBadEntry, "size %d", i.size)
		}
	case fstree.ModeSymlink:
		return i, setLink(i, e.Linkname, e.Path)
	case fstree.ModeChar, fstree.ModeBlock:
		if e.Major >= 1<<12 || e.Minor >= 1<<20 {
			return nil, entryError(e.Path, ErrLimit, "device %d:%d", e.Major, e.Minor)
		}
		i.rdev = makedev(e.Major, e.Minor)
		if i.isWhiteout() {
			return nil, entryError(e.Path, ErrBadEntry, "device 0:0 would be a whiteout")
		}
	default:
		return nil, entryError(e.Path, ErrUnsupported, "mode %o", e.Mode)
	}
	return i, nil
}

// cleanXattrs is what of m goes into a tar.
func cleanXattrs(m map[string]string) map[string]string {
	for k := range m {
		if isOverlayXattr(k) {
			c := make(map[string]string, len(m))
			for k, v := range m {
				if !isOverlayXattr(k) {
					c[k] = v
				}
			}
			return c
		}
	}
	return m
}

// pos is how long the tar is.
func (p *packer) pos() int64 { return p.sink.size + int64(len(p.buf)) }

func (p *packer) header(h tarHeader) error {
	p.hdr = h.append(p.hdr[:0])
	return p.write(p.hdr)
}

func (p *packer) write(b []byte) error {
	for len(b) > 0 {
		room, err := p.room()
		if err != nil {
			return err
		}
		n := copy(room, b)
		p.buf = p.buf[:len(p.buf)+n]
		b = b[n:]
	}
	return nil
}

// room is what is left of the chunk, or a new one.
func (p *packer) room() ([]byte, error) {
	if len(p.buf) == cap(p.buf) {
		if len(p.buf) > 0 {
			p.sink.put(p.buf)
			p.buf = nil
		}
		b, err := p.sink.get(p.ctx)
		if err != nil {
			return nil, err
		}
		p.buf = b[:0]
	}
	return p.buf[len(p.buf):cap(p.buf)], nil
}

// content writes the bytes of a regular file, padded.
func (p *packer) content(it *item) error {
	if it.data != nil || it.Size == 0 {
		if err := p.write(it.data); err != nil {
			return err
		}
	} else if err := p.stream(it); err != nil {
		return err
	}
	var zero [blockSize]byte
	return p.write(zero[:align(it.Size, blockSize)-it.Size])
}

// stream writes a file too large to be read ahead.
func (p *packer) stream(it *item) (err error) {
	r, err := it.open(p.ctx)
	if err != nil {
		return &EntryError{it.Path, err}
	}
	defer func() {
		if cerr := r.Close(); err == nil && cerr != nil {
			err = &EntryError{it.Path, cerr}
		}
	}()
	for left := it.Size; left > 0; {
		room, err := p.room()
		if err != nil {
			return err
		}
		n, err := r.Read(room[:min(int64(len(room)), left)])
		p.buf = p.buf[:len(p.buf)+n]
		left -= int64(n)
		if left > 0 && errors.Is(err, io.EOF) {
			return entryError(it.Path, ErrBadEntry, "content ends %d bytes early", left)
		}
		if left > 0 && err != nil {
			return &EntryError{it.Path, err}
		}
	}
	return atEnd(r, it)
}

// atEnd makes sure that nothing follows: a file that grew would be a layer of half of it.
func atEnd(r io.Reader, it *item) error {
	var one [1]byte
	switch n, err := io.ReadFull(r, one[:]); {
	case n > 0:
		return entryError(it.Path, ErrBadEntry, "content goes on after %d bytes", it.Size)
	case !errors.Is(err, io.EOF):
		return &EntryError{it.Path, err}
	}
	return nil
}
