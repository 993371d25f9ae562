package local

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"io"
	"maps"
	"slices"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// contentSum digests a tree as its entries come by: all that a step could see of it but modification times.
type contentSum struct{ h hash.Hash }

func newContentSum() *contentSum { return &contentSum{sha256.New()} }

func (s *contentSum) add(e *fstree.Entry, content [sha256.Size]byte) {
	writeEntry(s.h, e)
	s.h.Write(content[:])
}

func (s *contentSum) digest() digest.Digest { return digest.NewDigest(digest.SHA256, s.h) }

// metaSum digests all that is said of an entry.
func metaSum(e *fstree.Entry) [16]byte {
	h := sha256.New()
	writeEntry(h, e)
	writeInts(h, e.ModTime.Unix(), int64(e.ModTime.Nanosecond()))
	return [16]byte(h.Sum(nil)[:16])
}

// writeEntry writes everything but times, each string after its length so that no two entries give the same bytes.
func writeEntry(h io.Writer, e *fstree.Entry) {
	writeInts(h, int64(e.Mode), int64(e.UID), int64(e.GID), e.Size, int64(e.Major), int64(e.Minor), int64(len(e.Xattrs)))
	writeStrings(h, e.Path, e.Linkname, e.Hardlink)
	for _, k := range slices.Sorted(maps.Keys(e.Xattrs)) {
		writeStrings(h, k, e.Xattrs[k])
	}
}

// Writes to a hash never fail.

func writeInts(h io.Writer, values ...int64) {
	var b []byte
	for _, v := range values {
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	}
	_, _ = h.Write(b)
}

func writeStrings(h io.Writer, values ...string) {
	for _, v := range values {
		writeInts(h, int64(len(v)))
		_, _ = io.WriteString(h, v)
	}
}
