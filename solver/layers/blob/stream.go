package blob

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync/atomic"
)

const (
	chunkSize  = 256 << 10
	chunkCount = 8
	// firstChunk is the size of the first one: most layers are small. They grow with what has come.
	firstChunk = 8 << 10
)

// A sink hashes what it is given and writes it to the blob, both in a goroutine of its own, so that who produces the tar does
// not wait for either. It ends with sum or abort.
type sink struct {
	f    *os.File
	hash hash.Hash
	free chan []byte
	full chan []byte
	done chan struct{}
	err  atomic.Pointer[error]
	size int64 // accepted so far
}

func newSink(f *os.File) *sink {
	s := &sink{
		f:    f,
		hash: sha256.New(),
		free: make(chan []byte, chunkCount),
		full: make(chan []byte, chunkCount),
		done: make(chan struct{}),
	}
	for range chunkCount {
		s.free <- nil // made when first wanted
	}
	go s.run()
	return s
}

func (s *sink) run() {
	defer close(s.done)
	at := int64(headerSize)
	for b := range s.full {
		if s.err.Load() == nil {
			s.hash.Write(b)
			if _, err := s.f.WriteAt(b, at); err != nil {
				s.err.Store(&err)
			}
			at += int64(len(b))
		}
		s.free <- b[:cap(b)]
	}
}

// get returns a chunk to fill.
func (s *sink) get(ctx context.Context) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.err.Load(); err != nil {
		return nil, fmt.Errorf("write blob: %w", *err)
	}
	b := <-s.free // always comes: the sink waits for nobody
	if want := min(max(s.size, firstChunk), chunkSize); int64(len(b)) < want {
		b = make([]byte, want)
	}
	return b, nil
}

// put hands over a chunk, which the caller must not touch any more.
func (s *sink) put(b []byte) {
	s.size += int64(len(b))
	s.full <- b
}

// sum waits until all is written and returns the digest.
func (s *sink) sum() (d [sha256.Size]byte, err error) {
	s.abort()
	if err := s.err.Load(); err != nil {
		return d, fmt.Errorf("write blob: %w", *err)
	}
	s.hash.Sum(d[:0])
	return d, nil
}

// abort ends the sink. It may be called again.
func (s *sink) abort() {
	select {
	case <-s.done:
	default:
		close(s.full)
		<-s.done
	}
}

// A stream reads a tar and passes all of it on to a sink. It is an [io.Seeker] that only goes forward, so that file data need
// not be copied to be skipped.
type stream struct {
	ctx  context.Context
	src  io.Reader
	sink *sink
	cur  []byte // the chunk being read
	off  int    // in cur
	pos  int64  // in the tar
	// mark is where the first header block since it was set to -1 began.
	mark int64
	err  error // how the source ended
}

func (s *stream) fill() error {
	if len(s.cur) > 0 {
		s.sink.put(s.cur)
		s.cur, s.off = nil, 0
	}
	if s.err != nil {
		return s.err
	}
	b, err := s.sink.get(s.ctx)
	if err != nil {
		s.err = err
		return err
	}
	// Not io.ReadFull: it has one error for a source that ends and for a source that says it broke off.
	n := 0
	for n < len(b) && err == nil {
		var m int
		m, err = s.src.Read(b[n:])
		n += m
	}
	s.cur, s.off, s.err = b[:n], 0, err
	if n > 0 {
		return nil
	}
	s.sink.free <- b
	s.cur = nil
	return err
}

func (s *stream) Read(p []byte) (int, error) {
	if s.mark < 0 && len(p) == blockSize {
		s.mark = s.pos
	}
	if s.off == len(s.cur) {
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.cur[s.off:])
	s.off += n
	s.pos += int64(n)
	return n, nil
}

// Seek implements [io.Seeker] as far as archive/tar needs it.
func (s *stream) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekCurrent || offset < 0 {
		return 0, errors.ErrUnsupported
	}
	for offset > 0 {
		if s.off == len(s.cur) {
			if err := s.fill(); err != nil {
				if errors.Is(err, io.EOF) {
					return s.pos, nil // the next Read says it
				}
				return 0, err
			}
		}
		n := min(offset, int64(len(s.cur)-s.off))
		s.off += int(n)
		s.pos += n
		offset -= n
	}
	return s.pos, nil
}

// drain passes on the rest: what follows the end marker is part of the tar.
func (s *stream) drain() error {
	for {
		s.pos += int64(len(s.cur) - s.off)
		s.off = len(s.cur)
		if err := s.fill(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
