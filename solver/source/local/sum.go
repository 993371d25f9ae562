package local

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"maps"
	"slices"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// contentSum digests a tree as its entries come by: all that a step could see of it but modification times.
type contentSum struct {
	h   hash.Hash
	buf []byte // not hashed yet
}

// sumBuffer is how much is hashed at a time.
const sumBuffer = 32 << 10

func newContentSum() *contentSum {
	return &contentSum{h: sha256.New(), buf: make([]byte, 0, sumBuffer+4096)}
}

func (s *contentSum) add(e *fstree.Entry, content [sha256.Size]byte) {
	s.buf = append(appendEntry(s.buf, e), content[:]...)
	if len(s.buf) >= sumBuffer {
		s.flush()
	}
}

func (s *contentSum) flush() {
	s.h.Write(s.buf) // never fails
	s.buf = s.buf[:0]
}

func (s *contentSum) digest() digest.Digest {
	s.flush()
	return digest.NewDigest(digest.SHA256, s.h)
}

// metaSum digests all that is said of an entry.
func metaSum(e *fstree.Entry) [16]byte {
	b := appendInts(appendEntry(nil, e), e.ModTime.Unix(), int64(e.ModTime.Nanosecond()))
	sum := sha256.Sum256(b)
	return [16]byte(sum[:16])
}

// appendEntry appends everything but times, each string after its length so that no two entries give the same bytes.
func appendEntry(b []byte, e *fstree.Entry) []byte {
	b = appendInts(b, int64(e.Mode), int64(e.UID), int64(e.GID), e.Size, int64(e.Major), int64(e.Minor), int64(len(e.Xattrs)))
	b = appendStrings(b, e.Path, e.Linkname, e.Hardlink)
	for _, k := range slices.Sorted(maps.Keys(e.Xattrs)) {
		b = appendStrings(b, k, e.Xattrs[k])
	}
	return b
}

func appendInts(b []byte, values ...int64) []byte {
	for _, v := range values {
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	}
	return b
}

func appendStrings(b []byte, values ...string) []byte {
	for _, v := range values {
		b = append(appendInts(b, int64(len(v))), v...)
	}
	return b
}
