package ops

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"
	"strings"
	"time"

	"github.com/moby/buildkit/solver/pb"
	"github.com/slipwaybuild/slipway/solver/layers/decompress"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"golang.org/x/sys/unix"
)

// Limits on an archive that is unpacked.
const (
	maxArchive        = 64 << 30 // bytes, decompressed
	maxArchiveEntries = 4_000_000
	maxPath           = unix.PathMax
)

// ErrArchiveTooLarge is returned for an archive beyond the limits, such as one made to fill the disk.
var ErrArchiveTooLarge = errors.New("archive is too large")

// ErrOutsideArchive is returned for an archive that names something outside of the directory it is unpacked to.
var ErrOutsideArchive = errors.New("outside of the destination")

// unpack unpacks src into the destination of a if it is a tar archive, compressed or not, and says whether it was. Symlinks to
// archives count. The destination is the root for everything in the archive.
func (r *fileRun) unpack(ctx context.Context, src fstree.Tree, name string, dst *fstree.Delta, a *pb.FileActionCopy, who *owner) (bool, error) {
	p, err := fstree.Resolve(ctx, src, cleanRel(name), true)
	if err != nil {
		return false, nil // the copy says what is wrong
	}
	if e, err := src.Stat(ctx, p); err != nil || !e.IsRegular() {
		return false, nil
	}
	c, err := src.Open(ctx, p)
	if err != nil {
		return false, err
	}
	defer func() { _ = c.Close() }() // only read from
	var archive io.ReadSeeker
	var open func(off, n int64) fstree.OpenFunc
	switch {
	case isTar(io.NewSectionReader(c, 0, c.Size())):
		archive = io.NewSectionReader(c, 0, c.Size())
		open = func(off, n int64) fstree.OpenFunc { return section(fstree.FromTree(src, p), off, n) }
	case isCompressedTar(c):
		if archive, open, err = r.spool.decompress(ctx, c); err != nil {
			return false, err
		}
	default:
		return false, nil
	}
	u := &unpacker{dst: dst, who: who, now: r.now, open: open, spool: r.spool}
	if u.root, err = fstree.ResolveMissing(ctx, dst, cleanRel(a.Dest), true); err != nil {
		return false, pathError("mkdir", a.Dest, err)
	}
	root := r.entry(u.root, unix.S_IFDIR|0o755, who, a.Timestamp)
	if err := mkdirAll(ctx, dst, root, who); err != nil {
		return false, pathError("mkdir", a.Dest, err)
	}
	return true, u.run(ctx, archive)
}

func isTar(r io.Reader) bool {
	_, err := tar.NewReader(r).Next()
	return err == nil
}

func isCompressedTar(c fstree.Content) bool {
	d, err := decompress.NewReader(io.NewSectionReader(c, 0, c.Size()))
	if err != nil {
		return false
	}
	defer func() { _ = d.Close() }() // only read from
	return isTar(d)
}

// unpacker puts the entries of one archive into a tree.
type unpacker struct {
	dst   *fstree.Delta
	root  string
	who   *owner    // nil keeps owners
	now   time.Time // of directories that have to be made
	open  func(off, n int64) fstree.OpenFunc
	spool *spool
}

func (u *unpacker) run(ctx context.Context, archive io.ReadSeeker) error {
	tr := tar.NewReader(archive)
	for n := 0; ; n++ {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if n > maxArchiveEntries {
			return fmt.Errorf("%w: more than %d entries", ErrArchiveTooLarge, maxArchiveEntries)
		}
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		if err := u.put(ctx, hdr, tr, archive); err != nil {
			return fmt.Errorf("archive entry %q: %w", hdr.Name, err)
		}
	}
}

// put makes one entry.
func (u *unpacker) put(ctx context.Context, hdr *tar.Header, data io.Reader, archive io.Seeker) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	p, err := u.place(ctx, hdr.Name)
	if err != nil || p == u.root {
		return err
	}
	e, err := u.entry(hdr, p)
	if err != nil {
		return err
	}
	old, err := u.dst.Stat(ctx, p)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && !(old.IsDir() && e.IsDir()) {
		if err := u.dst.RemoveAll(ctx, p); err != nil {
			return err
		}
	}
	if hdr.Typeflag == tar.TypeLink {
		first, err := fstree.Resolve(ctx, fstree.Sub(u.dst, u.root), hdr.Linkname, false)
		if err != nil {
			return err
		}
		return u.dst.Link(ctx, joinRel(u.root, first), p)
	}
	var open fstree.OpenFunc
	if e.IsRegular() {
		if open, err = u.content(ctx, hdr, data, archive); err != nil {
			return err
		}
	}
	return u.dst.Put(ctx, e, open)
}

// place is where an entry goes, inside the destination whatever symlinks the archive made before. Missing directories above
// it are made.
func (u *unpacker) place(ctx context.Context, name string) (string, error) {
	clean := path.Clean(name)
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return "", ErrOutsideArchive
	}
	if len(clean) > maxPath {
		return "", fmt.Errorf("path of %d bytes", len(clean))
	}
	rel := cleanRel(clean)
	if rel == "" {
		return u.root, nil
	}
	dir, base := path.Split(rel)
	dir, err := fstree.ResolveMissing(ctx, fstree.Sub(u.dst, u.root), dir, true)
	if err != nil {
		return "", err
	}
	dir = joinRel(u.root, dir)
	above := fstree.Entry{Path: dir, Mode: unix.S_IFDIR | 0o755, ModTime: u.now}
	if err := u.dst.MkdirAll(ctx, above); err != nil {
		return "", err
	}
	return joinRel(dir, base), nil
}

func (u *unpacker) entry(hdr *tar.Header, p string) (fstree.Entry, error) {
	e := fstree.Entry{Path: p, Mode: uint32(hdr.Mode) & 0o7777, ModTime: hdr.ModTime}
	switch hdr.Typeflag {
	case tar.TypeDir:
		e.Mode |= unix.S_IFDIR
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont, tar.TypeLink:
		e.Mode |= unix.S_IFREG
		e.Size = hdr.Size
	case tar.TypeSymlink:
		e.Mode = unix.S_IFLNK | 0o777
		e.Linkname = hdr.Linkname
	case tar.TypeChar:
		e.Mode |= unix.S_IFCHR
	case tar.TypeBlock:
		e.Mode |= unix.S_IFBLK
	case tar.TypeFifo:
		e.Mode |= unix.S_IFIFO
	default:
		return e, fmt.Errorf("unknown type %q", hdr.Typeflag)
	}
	if hdr.Uid < 0 || hdr.Uid > math.MaxUint32 || hdr.Gid < 0 || hdr.Gid > math.MaxUint32 {
		return e, fmt.Errorf("owner %d:%d", hdr.Uid, hdr.Gid)
	}
	if hdr.Devmajor < 0 || hdr.Devmajor > math.MaxUint32 || hdr.Devminor < 0 || hdr.Devminor > math.MaxUint32 {
		return e, fmt.Errorf("device %d:%d", hdr.Devmajor, hdr.Devminor)
	}
	e.Major, e.Minor = uint32(hdr.Devmajor), uint32(hdr.Devminor)
	e.UID, e.GID = uint32(hdr.Uid), uint32(hdr.Gid)
	if u.who != nil {
		e.UID, e.GID = u.who.uid, u.who.gid
	}
	for k, v := range hdr.PAXRecords {
		name, ok := strings.CutPrefix(k, "SCHILY.xattr.")
		// overlayfs would obey its own attributes.
		if !ok || strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		if e.Xattrs == nil {
			e.Xattrs = map[string]string{}
		}
		e.Xattrs[name] = v
	}
	return e, nil
}

// content is the bytes of the entry that was just read: where they lie in the archive, or written out if they do not lie there
// in one piece.
func (u *unpacker) content(ctx context.Context, hdr *tar.Header, data io.Reader, archive io.Seeker) (fstree.OpenFunc, error) {
	sparse := hdr.Typeflag == tar.TypeGNUSparse
	for k := range hdr.PAXRecords {
		sparse = sparse || strings.HasPrefix(k, "GNU.sparse.")
	}
	if sparse {
		return u.spool.write(ctx, data)
	}
	off, err := archive.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, err
	}
	return u.open(off, hdr.Size), nil
}
