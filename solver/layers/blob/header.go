package blob

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"io"

	digest "github.com/opencontainers/go-digest"
)

const (
	// headerSize is where the tar begins.
	headerSize = 4096
	blockSize  = 512
	// superAt is where EROFS wants its superblock, ownAt where our own header is, in space EROFS leaves alone.
	superAt = 1024
	ownAt   = 2048
	ownSize = 128

	formatVersion = 1
)

var magic = [8]byte{'s', 'l', 'i', 'p', 'b', 'l', 'o', 'b'}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const (
	flagImplied = 1 << iota
	flagWhiteouts
	flagEmpty
)

// header is our own header. It makes a blob say what it is without anything beside it.
type header struct {
	diffID  [sha256.Size]byte
	flags   uint32
	tarSize int64
	entries int64
	meta    int64 // where the metadata begins
	inodes  int64 // the length of the inode area, at meta
	table   int64 // where the table of what EROFS cannot say begins
	size    int64 // where the blob ends
	metaLen int64 // the length of the metadata, table included; zeros up to size
	metaSum uint32
}

func (h *header) encode(b []byte) {
	copy(b, magic[:])
	le := binary.LittleEndian
	le.PutUint32(b[8:], formatVersion)
	le.PutUint32(b[12:], h.flags)
	copy(b[16:48], h.diffID[:])
	for i, v := range []int64{h.tarSize, h.entries, h.meta, h.inodes, h.table, h.metaLen, h.size} {
		le.PutUint64(b[48+8*i:], uint64(v))
	}
	le.PutUint32(b[104:], h.metaSum)
	le.PutUint32(b[ownSize-4:], crc32.Checksum(b[:ownSize-4], castagnoli))
}

func (h *header) decode(b []byte) error {
	le := binary.LittleEndian
	switch {
	case !bytes.Equal(b[:8], magic[:]):
		return damaged("no blob at all")
	case le.Uint32(b[ownSize-4:]) != crc32.Checksum(b[:ownSize-4], castagnoli):
		return damaged("wrong checksum of the header")
	case le.Uint32(b[8:]) != formatVersion:
		return damaged("format version %d, %d is known", le.Uint32(b[8:]), formatVersion)
	}
	h.flags = le.Uint32(b[12:])
	copy(h.diffID[:], b[16:48])
	for i, p := range []*int64{&h.tarSize, &h.entries, &h.meta, &h.inodes, &h.table, &h.metaLen, &h.size} {
		*p = int64(le.Uint64(b[48+8*i:]))
	}
	h.metaSum = le.Uint32(b[104:])
	ok := h.tarSize >= 0 && h.entries >= 0 && h.size >= headerSize && h.tarSize <= h.size-headerSize &&
		h.meta >= headerSize+h.tarSize && h.meta%blockSize == 0 && h.meta <= h.size &&
		h.inodes >= 0 && h.inodes <= h.size-h.meta &&
		h.metaLen >= 0 && h.metaLen <= h.size-h.meta &&
		h.table >= h.meta+h.inodes && h.table <= h.meta+h.metaLen
	if !ok {
		return damaged("header makes no sense")
	}
	return nil
}

func (h *header) summary() Summary {
	return Summary{
		DiffID:       digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(h.diffID[:])),
		TarSize:      h.tarSize,
		Size:         h.size,
		Entries:      int(h.entries),
		HasImplied:   h.flags&flagImplied != 0,
		HasWhiteouts: h.flags&flagWhiteouts != 0,
		Empty:        h.flags&flagEmpty != 0,
	}
}

// Summary describes a blob.
type Summary struct {
	// DiffID is the digest of the tar.
	DiffID digest.Digest
	// TarSize and Size are the lengths of the tar and of the whole blob in bytes.
	TarSize, Size int64
	// Entries is the number of names, implied ones and whiteouts included, the root not.
	Entries int
	// HasImplied says that some directory has no entry of its own. The root is not counted: it hardly ever has one.
	HasImplied bool
	// HasWhiteouts says that something hides what is below: a whiteout or an opaque directory.
	HasWhiteouts bool
	// Empty says that the layer changes nothing.
	Empty bool
}

func readHeader(r io.ReaderAt, size int64) (header, error) {
	var h header
	var b [ownSize]byte
	if _, err := r.ReadAt(b[:], ownAt); err != nil {
		return h, damaged("read header: %w", err)
	}
	if err := h.decode(b[:]); err != nil {
		return h, err
	}
	if h.size != size {
		return h, damaged("file of %d bytes, should be %d", size, h.size)
	}
	return h, nil
}
