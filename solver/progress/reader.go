package progress

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// Reader follows a journal. It is for one goroutine at a time.
type Reader struct {
	j        *Journal
	file     *window
	buf      *bufio.Reader
	off      int64 // of the next entry
	complete bool
	ended    bool
}

func newReader(j *Journal, f *os.File) *Reader {
	r := &Reader{j: j, off: int64(len(journalMagic))}
	r.file = &window{f: f, at: r.off, end: r.off}
	r.buf = bufio.NewReaderSize(r.file, 64<<10)
	return r
}

// window reads a file that grows, and nothing of a write that is under way.
type window struct {
	f       *os.File
	at, end int64
}

func (w *window) Read(p []byte) (int, error) {
	if w.at >= w.end {
		return 0, io.EOF
	}
	n, err := w.f.ReadAt(p[:min(int64(len(p)), w.end-w.at)], w.at)
	w.at += int64(n)
	return n, err
}

// Next returns the next event. It waits for one until ctx ends, and returns [io.EOF] at the end of the story. When the writer's
// disk failed, the error says so after the last event that was kept.
func (r *Reader) Next(ctx context.Context) (Event, error) {
	for !r.ended {
		size, done, changed, fault := r.j.visible()
		if r.off < size {
			ev, err := r.read(size, done)
			if err != nil || ev != (Event{}) {
				return ev, err
			}
			continue
		}
		if done {
			r.ended = true
			if fault != nil {
				return Event{}, fault
			}
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Event{}, ctx.Err()
		}
	}
	return Event{}, io.EOF
}

// read decodes the entry at off, of a file in which size bytes are there. In a finished file a tail that is no entry is what a
// crash left: the story ends before it.
func (r *Reader) read(size int64, done bool) (Event, error) {
	payload, n, err := r.entry(size)
	var ev Event
	if err == nil {
		ev, err = decodeEvent(payload)
	}
	switch {
	case err != nil && done && errors.Is(err, errCorrupt):
		r.ended = true
		return Event{}, nil
	case err != nil:
		return Event{}, fmt.Errorf("read journal %s at %d: %w", r.j.path, r.off, err)
	}
	r.off += n
	if ev == (Event{}) {
		r.ended, r.complete = true, true
	}
	return ev, nil
}

// entry returns the payload at off and the length of the whole entry.
func (r *Reader) entry(size int64) ([]byte, int64, error) {
	r.file.end = size
	head, err := r.buf.Peek(int(min(binary.MaxVarintLen64, size-r.off)))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, err
	}
	length, n := binary.Uvarint(head)
	if n <= 0 || length > maxEntry || int64(length) > size-r.off-int64(n) {
		return nil, 0, errCorrupt
	}
	if _, err := r.buf.Discard(n); err != nil {
		return nil, 0, err
	}
	payload := make([]byte, length)
	if _, err := io.ReadFull(r.buf, payload); err != nil {
		return nil, 0, err
	}
	return payload, int64(n) + int64(length), nil
}

// Complete tells, after [io.EOF], whether the journal was closed properly: false means that its writer died.
func (r *Reader) Complete() bool { return r.complete }

// Close gives the file back.
func (r *Reader) Close() error { return r.file.f.Close() }
