package imageservice

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// peek is how much of a file tells what it is: a header of a tar.
const peek = 512

// decompressed reads what was compressed by whatever its first bytes say, or not at all. The caller closes it; r stays the caller's.
func decompressed(r *bufio.Reader) (io.ReadCloser, error) {
	head, err := r.Peek(6)
	if err != nil && len(head) == 0 {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzip.NewReader(r)
	case bytes.HasPrefix(head, []byte("BZh")):
		return io.NopCloser(bzip2.NewReader(r)), nil
	case bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		z, err := xz.NewReader(r)
		return io.NopCloser(z), err
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, fmt.Errorf("read zstd: %w", err)
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(r), nil
}

// isTar tells whether a file begins as a tar does, or is one without entries.
func isTar(r *bufio.Reader) bool {
	head, _ := r.Peek(peek)
	if len(head) < peek {
		return false
	}
	return bytes.Equal(head[257:262], []byte("ustar")) || bytes.Equal(head, make([]byte, peek))
}
