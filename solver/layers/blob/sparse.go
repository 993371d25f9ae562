package blob

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// sparse is a file whose content in the tar is not what the file holds: it is expanded into an area behind the tar.
type sparse struct {
	ino    *inode
	header int64 // where its first header begins in the tar
	name   string
}

func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// sparseAlign lets holes in a file be holes in the blob.
const sparseAlign = 4096

// expand writes the content of sparse files behind the tar of tarSize bytes and returns where that ends in the blob.
func (x *indexer) expand(ctx context.Context, f *os.File, tarSize int64) (int64, error) {
	end := align(headerSize+tarSize, blockSize)
	if len(x.sparse) == 0 {
		return end, nil
	}
	buf := make([]byte, chunkSize)
	zero := make([]byte, chunkSize)
	for _, s := range x.sparse {
		end = align(end, sparseAlign)
		s.ino.data = end
		tr := tar.NewReader(io.NewSectionReader(f, headerSize+s.header, tarSize-s.header))
		h, err := tr.Next()
		if err != nil || h.Name != s.name || h.Size != s.ino.size {
			return 0, fmt.Errorf("expand %q: second reading differs (%w)", s.name, errors.Join(err, ErrDamaged))
		}
		for at := end; ; {
			if err := ctx.Err(); err != nil {
				return 0, err
			}
			n, err := io.ReadFull(tr, buf)
			if n > 0 && !bytes.Equal(buf[:n], zero[:n]) {
				if _, err := f.WriteAt(buf[:n], at); err != nil {
					return 0, fmt.Errorf("expand %q: %w", s.name, err)
				}
			}
			at += int64(n)
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) && at == end+h.Size {
				break
			}
			if err != nil {
				return 0, fmt.Errorf("expand %q: %w", s.name, err)
			}
		}
		end += h.Size
	}
	return align(end, blockSize), nil
}
