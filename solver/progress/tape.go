package progress

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// maxTape is how many bytes a [Tape] keeps in memory.
const maxTape = 1 << 20

// Tape keeps the events of work that others may join, so that they can be told what happened before: up to a megabyte in
// memory, and from there on in a temporary file that has no name. It is safe for concurrent use. Its zero value is ready.
type Tape struct {
	// Dir is where the file is made; empty is the system's directory for temporary files.
	Dir string

	mu     sync.Mutex
	memory []byte // what is not in the file yet
	file   *os.File
	size   int64 // of the file
	err    error // recording stopped
	closed bool
}

// Append records ev. Recording stops for good at the first fault of the disk, which [Tape.Play] reports.
func (t *Tape) Append(ev Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil || t.closed {
		return
	}
	t.memory, t.err = appendEvent(t.memory, ev)
	if t.err == nil && len(t.memory) > maxTape {
		t.err = t.spill()
	}
}

// spill moves what is in memory to the file.
func (t *Tape) spill() error {
	if t.file == nil {
		f, err := os.CreateTemp(t.Dir, "slipway-tape-")
		if err != nil {
			return fmt.Errorf("keep progress: %w", err)
		}
		t.file = f
		if err := os.Remove(f.Name()); err != nil {
			return fmt.Errorf("keep progress: %w", err)
		}
	}
	if _, err := t.file.WriteAt(t.memory, t.size); err != nil {
		return fmt.Errorf("keep progress: %w", err)
	}
	t.size += int64(len(t.memory))
	t.memory = t.memory[:0]
	return nil
}

// Len returns how many bytes are recorded: a position for [Tape.Play].
func (t *Tape) Len() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.size + int64(len(t.memory))
}

// Play calls fn with the events recorded from position from up to now and returns the position it came to. It must not overlap
// Close. An error says what is missing after that position, which then is the end.
func (t *Tape) Play(from int64, fn func(Event)) (int64, error) {
	t.mu.Lock()
	fault, file, size := t.err, t.file, t.size
	var rest []byte
	if skip := max(from-size, 0); skip < int64(len(t.memory)) {
		rest = append(rest, t.memory[skip:]...)
	}
	t.mu.Unlock()

	if from < size {
		r := bufio.NewReaderSize(io.NewSectionReader(file, from, size-from), 64<<10)
		n, err := play(r, fn)
		from += n
		if err != nil {
			return from, errors.Join(fault, err)
		}
	}
	n, err := playBytes(rest, fn)
	return from + n, errors.Join(fault, err)
}

func play(r *bufio.Reader, fn func(Event)) (n int64, err error) {
	for {
		length, err := binary.ReadUvarint(r)
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil || length > maxEntry {
			return n, errors.Join(errCorrupt, err)
		}
		payload := make([]byte, length)
		if _, err := io.ReadFull(r, payload); err != nil {
			return n, err
		}
		ev, err := decodeEvent(payload)
		if err != nil {
			return n, err
		}
		fn(ev)
		n += int64(len(binary.AppendUvarint(nil, length))) + int64(length)
	}
}

func playBytes(buf []byte, fn func(Event)) (n int64, err error) {
	for len(buf) > 0 {
		length, head := binary.Uvarint(buf)
		if head <= 0 || length > uint64(len(buf)-head) {
			return n, errCorrupt
		}
		end := head + int(length)
		// The buffer is the caller's own copy, so events may keep parts of it.
		ev, err := decodeEvent(buf[head:end:end])
		if err != nil {
			return n, err
		}
		fn(ev)
		buf, n = buf[end:], n+int64(end)
	}
	return n, nil
}

// Close forgets everything.
func (t *Tape) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed, t.memory = true, nil
	if t.file == nil {
		return nil
	}
	return t.file.Close()
}
