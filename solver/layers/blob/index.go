package blob

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

const (
	whiteoutPrefix = ".wh."
	metaPrefix     = ".wh..wh."
	opaqueName     = ".wh..wh..opq"
	parkedPrefix   = ".wh..wh.plnk/"

	xattrRecord = "SCHILY.xattr."
)

// Index makes a blob of the uncompressed tar r, which it reads to the very end, whatever follows the tar's own end marker. f
// must be empty and open for reading and writing; it stays the caller's, is not synced, and is of no use after an error.
//
// The tar is taken as hostile: it can name nothing outside of the layer, and goes no further than l. An error that is about an
// entry is an [EntryError].
func Index(ctx context.Context, r io.Reader, f *os.File, l Limits) (Summary, error) {
	s := newSink(f)
	defer s.abort()
	x := &indexer{
		assembly: newAssembly(l),
		stream:   &stream{ctx: ctx, src: r, sink: s},
	}
	if err := x.read(); err != nil {
		return Summary{}, fmt.Errorf("index layer: %w", err)
	}
	if err := x.stream.drain(); err != nil {
		return Summary{}, fmt.Errorf("index layer: %w", err)
	}
	sum, err := s.sum()
	if err != nil {
		return Summary{}, fmt.Errorf("index layer: %w", err)
	}
	end, err := x.expand(ctx, f, s.size)
	if err != nil {
		return Summary{}, fmt.Errorf("index layer: %w", err)
	}
	return finish(x.assembly, f, sum, s.size, end)
}

// An indexer enters the entries of a tar into an assembly.
type indexer struct {
	*assembly
	stream *stream
	sparse []sparse
	holes  int64 // the size of all sparse files
}

func (x *indexer) read() error {
	tr := tar.NewReader(x.stream)
	for {
		x.stream.mark = -1
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return tarError(x.stream, err)
		}
		if err := x.entry(h); err != nil {
			return err
		}
	}
}

// tarError tells a tar that is wrong from a source that failed.
func tarError(s *stream, err error) error {
	if s.err != nil && !errors.Is(s.err, io.EOF) {
		return fmt.Errorf("read tar: %w", s.err)
	}
	if errors.Is(err, tar.ErrFieldTooLong) {
		err = fmt.Errorf("%w: %w", ErrLimit, err)
	}
	return fmt.Errorf("read tar at %d: %w", s.pos, err)
}

func (x *indexer) entry(h *tar.Header) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	p, err := clean(h.Name)
	if err != nil {
		return err
	}
	if strings.Contains(p, whiteoutPrefix) {
		if done, err := x.special(h, p); done || err != nil {
			return err
		}
	}
	if h.Typeflag == tar.TypeLink {
		return x.hardlink(h, p)
	}
	i, err := x.inode(h)
	if err != nil || i == nil {
		return err
	}
	_, err = x.put(p, h.Name, i)
	return err
}

// special takes care of names that mean something else than a file. done says that the entry was one.
func (x *indexer) special(h *tar.Header, p string) (done bool, err error) {
	dir, last := path.Split(p)
	switch {
	case last == opaqueName:
		return true, x.hide(dir, h.Name)
	case strings.HasPrefix(p, parkedPrefix) && h.Typeflag != tar.TypeLink && h.Typeflag != tar.TypeDir:
		if x.names++; x.names > x.limits.Entries {
			return true, entryError(h.Name, ErrLimit, "more than %d names", x.limits.Entries)
		}
		i, err := x.inode(h)
		if err == nil && i != nil {
			x.parked[p] = i
		}
		return true, err
	case strings.HasPrefix(p, metaPrefix) || strings.Contains(p, "/"+metaPrefix):
		return true, nil // AUFS's own affairs
	case strings.HasPrefix(dir, whiteoutPrefix) || strings.Contains(dir, "/"+whiteoutPrefix):
		return true, entryError(h.Name, ErrUnsafePath, "lies inside a whiteout")
	case strings.HasPrefix(last, whiteoutPrefix):
		name := last[len(whiteoutPrefix):]
		if name == "" || name == "." || name == ".." {
			return true, entryError(h.Name, ErrUnsafePath, "whiteout of nothing")
		}
		return true, x.whiteout(dir+name, h.Name)
	}
	return false, nil
}

func (x *indexer) hardlink(h *tar.Header, p string) error {
	target, err := clean(h.Linkname)
	if err != nil {
		return entryError(h.Name, ErrUnsafePath, "hard link to %q", shorten(h.Linkname))
	}
	return x.link(p, target, h.Name)
}

// inode makes of a header what the layer stores, nil for what it leaves out.
func (x *indexer) inode(h *tar.Header) (*inode, error) {
	i := &inode{
		mode: uint32(h.Mode) & 0o7777,
		uid:  uint32(h.Uid),
		gid:  uint32(h.Gid),
		sec:  h.ModTime.Unix(),
		nsec: uint32(h.ModTime.Nanosecond()),
	}
	if h.ModTime.IsZero() {
		i.sec, i.nsec = 0, 0
	}
	if h.Uid < 0 || h.Gid < 0 || int64(h.Uid) >= 1<<32 || int64(h.Gid) >= 1<<32 {
		return nil, entryError(h.Name, ErrLimit, "owner %d:%d", h.Uid, h.Gid)
	}
	named := map[string]string(nil)
	for k, v := range h.PAXRecords {
		if n, ok := strings.CutPrefix(k, xattrRecord); ok && n != "" {
			if named == nil {
				named = map[string]string{}
			}
			named[strings.ReplaceAll(n, "%3D", "=")] = v
		}
	}
	var err error
	if i.xattrs, err = xattrs(named, x.limits.XattrBytes, h.Name); err != nil {
		return nil, err
	}
	return x.typed(i, h)
}

// typed adds to i what depends on the type.
func (x *indexer) typed(i *inode, h *tar.Header) (*inode, error) {
	switch h.Typeflag {
	case tar.TypeReg, '\x00', tar.TypeCont, tar.TypeGNUSparse:
		i.mode |= fstree.ModeRegular
		return i, x.content(i, h)
	case tar.TypeDir:
		i.mode |= fstree.ModeDir
	case tar.TypeSymlink:
		i.mode |= fstree.ModeSymlink
		return i, setLink(i, h.Linkname, h.Name)
	case tar.TypeFifo:
		i.mode |= fstree.ModeFifo
	case tar.TypeChar, tar.TypeBlock:
		if h.Devmajor < 0 || h.Devmajor >= 1<<12 || h.Devminor < 0 || h.Devminor >= 1<<20 {
			return nil, entryError(h.Name, ErrLimit, "device %d:%d", h.Devmajor, h.Devminor)
		}
		i.mode |= fstree.ModeBlock
		i.rdev = makedev(uint32(h.Devmajor), uint32(h.Devminor))
		if h.Typeflag == tar.TypeChar {
			i.mode ^= fstree.ModeBlock ^ fstree.ModeChar
			if i.rdev == 0 {
				return nil, nil // overlayfs would take it for a whiteout
			}
		}
	default:
		return nil, entryError(h.Name, ErrUnsupported, "type %q", h.Typeflag)
	}
	return i, nil
}

func setLink(i *inode, target, name string) error {
	switch {
	case target == "":
		return entryError(name, ErrBadEntry, "symlink to nothing")
	case strings.IndexByte(target, 0) >= 0:
		return entryError(name, ErrBadEntry, "symlink with a zero byte")
	case len(target) > maxLinkname:
		return entryError(name, ErrLimit, "symlink target of %d bytes, %d allowed", len(target), maxLinkname)
	}
	i.linkname, i.size = target, int64(len(target))
	i.mode |= 0o777
	return nil
}

func (x *indexer) content(i *inode, h *tar.Header) error {
	i.size = h.Size
	if !isSparse(h) {
		i.data = headerSize + x.stream.pos
		if i.data%blockSize != 0 {
			return entryError(h.Name, ErrBadEntry, "content at %d is not aligned", x.stream.pos)
		}
		return nil
	}
	if h.Size > x.limits.Expanded-x.holes {
		return entryError(h.Name, ErrLimit, "sparse files of more than %d bytes", x.limits.Expanded)
	}
	x.holes += h.Size
	x.sparse = append(x.sparse, sparse{ino: i, header: x.stream.mark, name: h.Name})
	return nil
}
