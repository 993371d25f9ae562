package containerd

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
)

// readAhead is how much is asked for at a time: every read is a stream of its own.
const readAhead = 1 << 20

// reader reads a blob in large pieces, whatever is asked of it.
type reader struct {
	ctx   context.Context // of whoever opened it
	super content.ReaderAt
	retry retry

	mu  sync.Mutex // guards what follows
	buf []byte     // the piece that was read last
	at  int64      // where it begins
}

func (r *reader) Size() int64 { return r.super.Size() }

func (r *reader) Close() error { return r.super.Close() }

// ReadAt implements [io.ReaderAt].
func (r *reader) ReadAt(p []byte, off int64) (int, error) {
	size := r.Size()
	switch {
	case off < 0:
		return 0, errors.New("negative offset")
	case len(p) == 0:
		return 0, nil
	case off >= size:
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), size-off)]
	n, err := r.read(want, off)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

func (r *reader) read(p []byte, off int64) (int, error) {
	if len(p) >= readAhead {
		return len(p), r.fill(p, off)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for n < len(p) {
		if off < r.at || off >= r.at+int64(len(r.buf)) {
			if err := r.next(off); err != nil {
				return n, err
			}
		}
		c := copy(p[n:], r.buf[off-r.at:])
		n, off = n+c, off+int64(c)
	}
	return n, nil
}

// next reads the piece at an offset. It is called under mu.
func (r *reader) next(off int64) error {
	size := int(min(readAhead, r.Size()-off))
	if cap(r.buf) < size {
		r.buf = make([]byte, size)
	}
	r.buf, r.at = r.buf[:size], off
	if err := r.fill(r.buf, off); err != nil {
		r.buf = r.buf[:0]
		return err
	}
	return nil
}

// fill reads all of p, which ends within the blob.
func (r *reader) fill(p []byte, off int64) error {
	done := 0
	err := r.retry.native(r.ctx, func() error {
		n, err := r.super.ReadAt(p[done:], off+int64(done))
		done += n
		if done == len(p) {
			return nil
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	})
	if err != nil {
		return err
	}
	if done < len(p) {
		return io.ErrUnexpectedEOF
	}
	return nil
}
