package progress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

const (
	journalMagic = "slipway-journal 1\n"
	// maxPending is how many bytes may wait for the disk before Append waits for it too.
	maxPending = 1 << 20
)

// Journal is the story of one build as an append-only file. It is a [Sink]: Append puts the event in a buffer, which a
// goroutine writes out as fast as the disk takes it, so bursts are batched and a lone event is visible at once. Append waits
// only when a megabyte is waiting for the disk, never for a reader. Any number of [Reader]s follow, each at its own pace, from
// the first event; memory use depends on none of them.
//
// All methods are safe for concurrent use.
type Journal struct {
	path string

	mu      sync.Mutex // guards what follows
	file    *os.File   // nil in a journal that was opened to be read
	pending []byte     // encoded, to be written next
	size    int64      // of the file, whole entries that readers may see
	closed  bool       // nothing is appended any more
	done    bool       // closed, and all that can be written is
	err     error      // why writing stopped
	changed chan struct{}
	room    *sync.Cond    // pending was taken, or writing stopped
	wake    chan struct{} // to the flusher; holds one
	flushed chan struct{} // closed when the flusher has ended
}

// Create makes a journal at path, which must not exist. The caller closes it.
func Create(path string) (*Journal, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create journal: %w", err)
	}
	if _, err := f.WriteString(journalMagic); err != nil {
		return nil, errors.Join(fmt.Errorf("create journal %s: %w", path, err), f.Close())
	}
	j := &Journal{
		path: path, file: f, size: int64(len(journalMagic)),
		wake: make(chan struct{}, 1), flushed: make(chan struct{}),
	}
	j.room = sync.NewCond(&j.mu)
	go j.flush()
	return j, nil
}

// Open opens a journal to read it. Its story ends with its last whole event, also when the process that wrote it died. Nothing
// needs to be closed but the readers, though Close is allowed.
func Open(path string) (*Journal, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	defer f.Close()
	magic := make([]byte, len(journalMagic))
	if _, err := io.ReadFull(f, magic); err != nil || string(magic) != journalMagic {
		return nil, fmt.Errorf("open journal %s: not a journal of this format", path)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	flushed := make(chan struct{})
	close(flushed)
	return &Journal{path: path, size: info.Size(), closed: true, done: true, flushed: flushed}, nil
}

// Path is where the journal lies.
func (j *Journal) Path() string { return j.path }

// Append writes an event. After Close, or when the disk failed, the event is dropped; Close tells about the latter.
func (j *Journal) Append(ev Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for len(j.pending) >= maxPending && !j.closed && j.err == nil {
		j.room.Wait()
	}
	if j.closed || j.err != nil {
		return
	}
	// An event that cannot be encoded is a fault of ours and not of the disk; the story goes on without it.
	if buf, err := appendEvent(j.pending, ev); err == nil {
		j.pending = buf
	}
	select {
	case j.wake <- struct{}{}:
	default: // it is awake already
	}
}

// flush writes what is pending until the journal is closed.
func (j *Journal) flush() {
	defer close(j.flushed)
	var spare []byte // takes turns with pending, so that writing needs no lock
	for range j.wake {
		j.mu.Lock()
		batch, last := j.pending, j.closed
		j.pending = spare[:0]
		at, err := j.size, j.err
		j.room.Broadcast()
		j.mu.Unlock()

		if err == nil { // after a fault not even the end is written: the story is not whole
			_, err = j.file.WriteAt(batch, at)
		}
		spare = batch
		if cap(spare) > 2*maxPending {
			spare = nil
		}
		if j.wrote(int64(len(batch)), err, last) {
			return
		}
	}
}

// wrote makes a batch visible and tells whether it was the last.
func (j *Journal) wrote(n int64, err error, last bool) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case err == nil:
		j.size += n
	case j.err == nil:
		j.err = fmt.Errorf("write journal %s: %w", j.path, err)
		j.room.Broadcast()
	}
	j.done = last
	if j.changed != nil {
		close(j.changed)
		j.changed = nil
	}
	return last
}

// Close marks the end of the story and waits until it is written. Readers go on to its end. The error is the first one that
// writing met.
func (j *Journal) Close() error {
	j.mu.Lock()
	first := !j.closed
	if first {
		j.closed = true
		j.pending = appendEnd(j.pending)
		j.room.Broadcast()
		select {
		case j.wake <- struct{}{}:
		default:
		}
	}
	j.mu.Unlock()
	<-j.flushed
	if !first {
		return nil
	}
	return errors.Join(j.err, j.file.Close())
}

// visible returns how far a reader may read, whether that is all there will be, and otherwise a channel that is closed when
// there is more.
func (j *Journal) visible() (size int64, done bool, changed <-chan struct{}, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.done && j.changed == nil {
		j.changed = make(chan struct{})
	}
	return j.size, j.done, j.changed, j.err
}

// NewReader returns a reader at the beginning. The caller closes it; it may outlive the journal's Close.
func (j *Journal) NewReader() (*Reader, error) {
	f, err := os.Open(j.path)
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	return newReader(j, f), nil
}

// Each calls fn with every event from the first to the end of the story, waiting for those to come, until fn or ctx gives an
// error.
func (j *Journal) Each(ctx context.Context, fn func(Event) error) error {
	r, err := j.NewReader()
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		ev, err := r.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := fn(ev); err != nil {
			return err
		}
	}
}
