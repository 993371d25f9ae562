package blob

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// Blob is an open blob. It is safe for concurrent use.
type Blob struct {
	r io.ReaderAt
	h header

	once  sync.Once // guards meta, table and err
	meta  []byte
	table table
	err   error

	mu      sync.Mutex
	digests map[int64]digest.Digest // by position of the inode; guarded by mu
}

// Open reads the header of the blob r of size bytes. r stays the caller's and must stay open while the blob, its tree or
// anything opened from it is used. The metadata is read, and its checksum compared, when the tree is first looked at; it is
// then kept in memory. What is not as it was written is [ErrDamaged], there and everywhere.
func Open(r io.ReaderAt, size int64) (*Blob, error) {
	h, err := readHeader(r, size)
	if err != nil {
		return nil, fmt.Errorf("open blob: %w", err)
	}
	return &Blob{r: r, h: h, digests: map[int64]digest.Digest{}}, nil
}

// Summary says what Index or Pack said of the blob.
func (b *Blob) Summary() Summary { return b.h.summary() }

// Tar is the exact uncompressed tar.
func (b *Blob) Tar() *io.SectionReader { return io.NewSectionReader(b.r, headerSize, b.h.tarSize) }

// Tree is the tree of this layer alone, with its whiteouts. It implements [fstree.Digester].
func (b *Blob) Tree() fstree.Tree { return &tree{b} }

// Verify reads all of the blob and compares it with its diffID and checksums.
func (b *Blob) Verify(ctx context.Context) error {
	if err := b.load(); err != nil {
		return fmt.Errorf("verify blob: %w", err)
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, &ctxReader{ctx, b.Tar()}); err != nil {
		return fmt.Errorf("verify blob: %w", err)
	}
	if [sha256.Size]byte(hash.Sum(nil)) != b.h.diffID {
		return fmt.Errorf("verify blob: %w", damaged("tar is not %s", b.Summary().DiffID))
	}
	return fstree.Walk(ctx, b.Tree(), "", func(fstree.Entry) error { return nil })
}

// load brings the metadata into memory.
func (b *Blob) load() error {
	b.once.Do(func() {
		meta := make([]byte, b.h.metaLen)
		if _, err := b.r.ReadAt(meta, b.h.meta); err != nil {
			b.err = damaged("read metadata: %w", err)
			return
		}
		if crc32.Checksum(meta, castagnoli) != b.h.metaSum {
			b.err = damaged("wrong checksum of the metadata")
			return
		}
		b.table, b.err = readTable(meta[b.h.table-b.h.meta:])
		b.meta = meta[:b.h.table-b.h.meta]
	})
	return b.err
}

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *ctxReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// stored is an inode as it is in the blob.
type stored struct {
	inode
	named  map[string]string
	opaque bool
}

// read reads the inode at pos in the inode area.
func (b *Blob) read(pos int64) (s stored, err error) {
	if pos < rootPos || pos%slotSize != 0 || pos > b.h.inodes-inodeSize {
		return s, damaged("inode at %d", pos)
	}
	le := binary.LittleEndian
	d := b.meta[pos : pos+inodeSize]
	s.inode = inode{
		pos:    pos,
		inline: le.Uint16(d) == formatInline,
		mode:   uint32(le.Uint16(d[4:])),
		size:   int64(le.Uint64(d[8:])),
		data:   int64(le.Uint32(d[16:])) * blockSize,
		uid:    le.Uint32(d[24:]),
		gid:    le.Uint32(d[28:]),
		sec:    int64(le.Uint64(d[32:])),
		nsec:   le.Uint32(d[40:]),
		nlink:  le.Uint32(d[44:]),
	}
	if f := le.Uint16(d); f != formatPlain && f != formatInline || s.size < 0 || s.nsec >= 1e9 {
		return s, damaged("inode at %d", pos)
	}
	at := pos + inodeSize
	if n := int64(le.Uint16(d[2:])); n > 0 {
		end := at + xattrHeader + (n-1)*4
		if end > b.h.inodes {
			return s, damaged("inode at %d", pos)
		}
		if s.named, s.opaque, err = getXattrs(b.meta[at:end]); err != nil {
			return s, err
		}
		at = end
	}
	return s, b.readTyped(&s, at, le.Uint32(d[16:]))
}

// readTyped reads what depends on the type of s; at is where something inline would be.
func (b *Blob) readTyped(s *stored, at int64, u uint32) error {
	switch s.mode & fstree.ModeType {
	case fstree.ModeChar, fstree.ModeBlock:
		s.rdev = u
	case fstree.ModeSymlink:
		if !s.inline {
			at = s.data - b.h.meta
		}
		if s.size > maxLinkname || at < 0 || at > int64(len(b.meta))-s.size {
			return damaged("symlink at %d", s.pos)
		}
		s.linkname = string(b.meta[at : at+s.size])
	case fstree.ModeRegular:
		if s.size > 0 && (s.data < headerSize || s.size > b.h.meta-s.data) {
			return damaged("file at %d", s.pos)
		}
	case fstree.ModeDir:
		if at = s.data - b.h.meta; at < b.h.inodes || at > int64(len(b.meta))-s.size {
			return damaged("directory at %d", s.pos)
		}
	case fstree.ModeFifo:
	default:
		return damaged("inode at %d", s.pos)
	}
	if s.inline && s.linkname == "" {
		return damaged("inode at %d", s.pos)
	}
	return nil
}
