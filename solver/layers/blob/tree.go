package blob

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"io/fs"
	"strings"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// tree reads the EROFS metadata of a blob, a name at a time. It trusts nothing it finds there beyond the checksum.
type tree struct{ *Blob }

func (t *tree) Stat(ctx context.Context, path string) (fstree.Entry, error) {
	s, err := t.lookup(ctx, "stat", path)
	if err != nil {
		return fstree.Entry{}, err
	}
	return t.entry(path, &s), nil
}

func (t *tree) ReadDir(ctx context.Context, path string) ([]fstree.Entry, error) {
	dir, err := t.lookup(ctx, "readdir", path)
	if err != nil {
		return nil, err
	}
	if !dir.isDir() {
		return nil, pathError("readdir", path, fstree.ErrNotDir)
	}
	var (
		es    []fstree.Entry
		below = map[int64]bool{}
	)
	err = t.dirents(&dir, func(name string, pos int64) error {
		s, err := t.read(pos)
		if err != nil {
			return err
		}
		if s.isDir() {
			// A directory with a second name, or inside itself, would make a walk endless.
			if below[pos] || !t.isChild(&s, dir.pos) {
				return damaged("directory at %d is not where it says", pos)
			}
			below[pos] = true
		}
		p := name
		if path != "" {
			p = path + "/" + name
		}
		if n := len(es); n > 0 && es[n-1].Path >= p {
			return damaged("directory at %d is not sorted", dir.pos)
		}
		es = append(es, t.entry(p, &s))
		return nil
	})
	if err != nil {
		return nil, pathError("readdir", path, err)
	}
	return es, nil
}

func (t *tree) Open(ctx context.Context, path string) (fstree.Content, error) {
	s, err := t.lookup(ctx, "open", path)
	if err != nil {
		return nil, err
	}
	if s.mode&fstree.ModeType != fstree.ModeRegular {
		return nil, pathError("open", path, fstree.ErrNotRegular)
	}
	return content{io.NewSectionReader(t.r, s.data, s.size)}, nil
}

type content struct{ *io.SectionReader }

func (content) Close() error { return nil }

// FileDigest implements [fstree.Digester]. The digest of a file is computed once.
func (t *tree) FileDigest(ctx context.Context, path string) (digest.Digest, bool, error) {
	s, err := t.lookup(ctx, "digest", path)
	if err != nil {
		return "", false, err
	}
	if s.mode&fstree.ModeType != fstree.ModeRegular {
		return "", false, pathError("digest", path, fstree.ErrNotRegular)
	}
	t.mu.Lock()
	d, ok := t.digests[s.pos]
	t.mu.Unlock()
	if ok {
		return d, true, nil
	}
	h := sha256.New()
	n, err := io.Copy(h, &ctxReader{ctx, io.NewSectionReader(t.r, s.data, s.size)})
	if err == nil && n != s.size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return "", false, pathError("digest", path, err)
	}
	d = digest.NewDigest(digest.SHA256, h)
	t.mu.Lock()
	t.digests[s.pos] = d
	t.mu.Unlock()
	return d, true, nil
}

func (t *tree) lookup(ctx context.Context, op, path string) (stored, error) {
	s, err := t.walk(ctx, path)
	if err != nil {
		return s, pathError(op, path, err)
	}
	return s, nil
}

func (t *tree) walk(ctx context.Context, path string) (s stored, err error) {
	if err := ctx.Err(); err != nil {
		return s, err
	}
	if err := t.load(); err != nil {
		return s, err
	}
	if s, err = t.read(rootPos); err != nil {
		return s, err
	}
	if !s.isDir() {
		return s, damaged("root")
	}
	for path != "" {
		var name string
		name, path, _ = strings.Cut(path, "/")
		if !s.isDir() {
			return s, fs.ErrNotExist
		}
		pos, err := t.find(&s, name)
		if err != nil {
			return s, err
		}
		dir := s.pos
		if s, err = t.read(pos); err != nil {
			return s, err
		}
		if s.isDir() && !t.isChild(&s, dir) {
			return s, damaged("directory at %d is not where it says", pos)
		}
	}
	return s, nil
}

// isChild says whether the directory s names the directory at dir as its parent. As only one can be named, no directory is
// found in two places, and none inside itself: the root, which names itself, is nobody's child.
func (t *tree) isChild(s *stored, dir int64) bool {
	up, err := t.find(s, "..")
	return err == nil && up == dir && s.pos != rootPos
}

// entry is s as the tree shows it.
func (t *tree) entry(path string, s *stored) fstree.Entry {
	if s.isWhiteout() {
		return fstree.Entry{Path: path, Whiteout: true}
	}
	e := fstree.Entry{
		Path:     path,
		Mode:     s.mode,
		UID:      s.uid,
		GID:      s.gid,
		ModTime:  time.Unix(s.sec, int64(s.nsec)).UTC(),
		Linkname: s.linkname,
		Xattrs:   s.named,
	}
	e.Major, e.Minor = splitdev(s.rdev)
	switch s.mode & fstree.ModeType {
	case fstree.ModeRegular:
		e.Size = s.size
	case fstree.ModeDir:
		e.Opaque = s.opaque
		e.Implied = t.table.implied[s.pos/slotSize]
		return e
	}
	if first := t.table.first[s.pos/slotSize]; first != path {
		e.Hardlink = first
	}
	return e
}

// block is a block of a directory.
type block []byte

func (b block) count() int { return int(binary.LittleEndian.Uint16(b[8:])) / direntSize }

func (b block) at(i int) (name string, pos int64, err error) {
	le := binary.LittleEndian
	d := b[direntSize*i:]
	from, to := int(le.Uint16(d[8:])), len(b)
	if i+1 < b.count() {
		to = int(le.Uint16(d[direntSize+8:]))
	}
	if from < direntSize*b.count() || from >= to || to > len(b) {
		return "", 0, damaged("directory entry")
	}
	n := b[from:to]
	if i+1 == b.count() {
		for len(n) > 0 && n[len(n)-1] == 0 {
			n = n[:len(n)-1]
		}
	}
	ino := le.Uint64(d)
	if ino > 1<<40 {
		return "", 0, damaged("directory entry")
	}
	return string(n), int64(ino) * slotSize, nil
}

// blocks is how many blocks the directory s has.
func blocks(s *stored) int64 { return (s.size + blockSize - 1) / blockSize }

func (t *tree) block(s *stored, n int64) (block, error) {
	at := s.data - t.h.meta
	end := min(at+(n+1)*blockSize, at+s.size)
	b := block(t.meta[at+n*blockSize : end])
	if len(b) < direntSize || b.count() == 0 || b.count()*direntSize > len(b) {
		return nil, damaged("directory at %d", s.pos)
	}
	return b, nil
}

// find returns the position of the inode called name in the directory s.
func (t *tree) find(s *stored, name string) (int64, error) {
	lo, hi := int64(0), blocks(s) // the name can only be in the last block that begins no later
	for hi-lo > 1 {
		mid := (lo + hi) / 2
		b, err := t.block(s, mid)
		if err != nil {
			return 0, err
		}
		first, _, err := b.at(0)
		if err != nil {
			return 0, err
		}
		if first <= name {
			lo = mid
		} else {
			hi = mid
		}
	}
	if lo == blocks(s) {
		return 0, fs.ErrNotExist
	}
	b, err := t.block(s, lo)
	if err != nil {
		return 0, err
	}
	for i := range b.count() {
		if n, pos, err := b.at(i); err != nil || n == name {
			return pos, err
		}
	}
	return 0, fs.ErrNotExist
}

// dirents calls fn for every child of the directory s.
func (t *tree) dirents(s *stored, fn func(name string, pos int64) error) error {
	for n := range blocks(s) {
		b, err := t.block(s, n)
		if err != nil {
			return err
		}
		for i := range b.count() {
			name, pos, err := b.at(i)
			if err != nil {
				return err
			}
			if name == "." || name == ".." {
				continue
			}
			if name == "" || len(name) > maxName || strings.ContainsAny(name, "/\x00") {
				return damaged("name in directory at %d", s.pos)
			}
			if err := fn(name, pos); err != nil {
				return err
			}
		}
	}
	return nil
}

func pathError(op, path string, err error) error {
	if path == "" {
		path = "/"
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}
