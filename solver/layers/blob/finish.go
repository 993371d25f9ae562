package blob

import (
	"crypto/sha256"
	"fmt"
	"hash/crc32"
	"math"
	"os"
)

// finish appends the metadata of a to f and then writes the header, so that a blob that was not finished is none. The tar of
// tarSize bytes is there already; base is where the metadata goes.
func finish(a *assembly, f *os.File, sum [sha256.Size]byte, tarSize, base int64) (Summary, error) {
	l := layOut(a, base)
	if (base+l.blocks)/blockSize > math.MaxUint32 {
		return Summary{}, fmt.Errorf("index layer: %w: blob of %d bytes", ErrLimit, base+l.blocks)
	}
	meta, tableAt := l.encode()
	h := header{
		diffID:  sum,
		flags:   l.flags,
		tarSize: tarSize,
		entries: int64(len(l.nodes)),
		meta:    base,
		inodes:  l.area,
		table:   base + tableAt,
		metaLen: int64(len(meta)),
		metaSum: crc32.Checksum(meta, castagnoli),
	}
	h.size = align(base+int64(len(meta)), blockSize)
	if _, err := f.WriteAt(meta, base); err != nil {
		return Summary{}, fmt.Errorf("write metadata: %w", err)
	}
	if err := f.Truncate(h.size); err != nil {
		return Summary{}, fmt.Errorf("write metadata: %w", err)
	}
	first := make([]byte, headerSize)
	putSuper(first[superAt:], &h, uint32(len(l.inodes)))
	h.encode(first[ownAt : ownAt+ownSize])
	if _, err := f.WriteAt(first, 0); err != nil {
		return Summary{}, fmt.Errorf("write header: %w", err)
	}
	return h.summary(), nil
}
