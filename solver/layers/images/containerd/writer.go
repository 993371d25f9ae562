package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
)

const (
	// messageSize is how much is written at a time.
	messageSize = 1 << 20
	// writeTries is how often writing one message goes on after a break.
	writeTries = 10
)

// writer writes a blob. When the connection breaks it is opened again, and goes on behind what containerd has: nothing is written
// before what came before was taken. Like all writers it belongs to one goroutine.
type writer struct {
	ctx   context.Context // of whoever opened it
	store contentStore
	opts  []content.WriterOpt

	stream content.Writer // nil when it is broken
	cancel context.CancelFunc
	offset int64         // behind what was taken
	digest digest.Digest // of the stream when it ended
}

// open opens the stream.
func (w *writer) open() error {
	// The stream of a writer that is not committed ends with its context only.
	ctx, cancel := context.WithCancel(w.ctx)
	s, err := w.store.super.Writer(ctx, w.opts...)
	if err != nil {
		cancel()
		if errdefs.IsUnavailable(err) {
			// It is the answer, too, to asking for a reference that another writer holds, for which the caller waits.
			if lost := w.store.answers(w.ctx); lost != nil {
				return lost
			}
		}
		return err
	}
	w.stream, w.cancel = s, cancel
	return nil
}

// Close ends the stream; what was written and not committed stays for the next who writes under the reference.
func (w *writer) Close() error {
	if w.stream == nil {
		return nil
	}
	w.digest = w.stream.Digest()
	err := w.stream.Close()
	w.cancel()
	w.stream = nil
	return err
}

// again opens a new stream once containerd answers and has noticed that the old one is broken, and finds out how much of what
// ends at end it has.
func (w *writer) again(end int64) error {
	_ = w.Close() // it is broken
	if err := w.store.answers(w.ctx); err != nil {
		return err
	}
	return w.store.retry.native(w.ctx, func() error {
		if err := w.open(); err != nil {
			return err
		}
		err := w.seek(end)
		if err != nil {
			_ = w.Close() // the error is told
		}
		return err
	})
}

// Write writes all of p.
func (w *writer) Write(p []byte) (n int, err error) {
	for piece := range slices.Chunk(p, messageSize) {
		if err := w.write(piece); err != nil {
			return n, err
		}
		n += len(piece)
	}
	return n, nil
}

func (w *writer) write(p []byte) error {
	end := w.offset + int64(len(p))
	for try := 0; ; try++ {
		if w.stream == nil {
			return errors.New("writer is closed")
		}
		_, err := w.stream.Write(p[int64(len(p))-(end-w.offset):])
		if err == nil {
			w.offset = end
			return nil
		}
		if !broken(err) || try == writeTries {
			return err
		}
		if err := w.again(end); err != nil {
			return err
		}
		if w.offset == end {
			return nil
		}
	}
}

// broken tells whether a stream has ended for a reason that lies not in what was sent. Sending on one that has ended says no more
// than EOF, and containerd's client leaves nothing of that but the text.
func broken(err error) bool {
	return errdefs.IsUnavailable(err) || errors.Is(err, io.EOF) || strings.HasSuffix(err.Error(), io.EOF.Error())
}

// seek goes on behind what containerd has of what ends at end.
func (w *writer) seek(end int64) error {
	st, err := w.stream.Status()
	switch {
	case err != nil:
		return err
	case w.offset == 0 && st.Offset > end:
		return w.stream.Truncate(0) // of an earlier attempt
	case st.Offset < w.offset || st.Offset > end:
		return fmt.Errorf("containerd has %d bytes of what was written, %d were taken before it was lost", st.Offset, w.offset)
	case w.offset == 0 && st.Offset > 0:
		return w.stream.Truncate(0) // whosever they are
	}
	w.offset = st.Offset
	return nil
}

// Truncate is possible to the beginning.
func (w *writer) Truncate(size int64) error {
	if w.stream == nil {
		return errors.New("writer is closed")
	}
	if size != 0 && size != w.offset {
		return fmt.Errorf("truncate to %d: %w", size, errdefs.ErrNotImplemented)
	}
	w.offset = size
	return w.stream.Truncate(size)
}

// Digest is that of what was written so far; once committed, the blob's.
func (w *writer) Digest() digest.Digest {
	if w.stream == nil {
		return w.digest
	}
	return w.stream.Digest()
}

func (w *writer) Status() (content.Status, error) {
	if w.stream == nil {
		return content.Status{}, errors.New("writer is closed")
	}
	return w.stream.Status()
}

// Commit makes the blob appear. The writer is closed afterwards.
func (w *writer) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...content.Opt) error {
	if w.stream == nil {
		return errors.New("writer is closed")
	}
	defer func() { _ = w.Close() }() // it has been told
	err := w.stream.Commit(ctx, size, expected, opts...)
	if err == nil || !broken(err) {
		return err
	}
	if err := w.again(w.offset); err != nil {
		return w.committed(ctx, expected, err)
	}
	return w.stream.Commit(ctx, size, expected, opts...)
}

// committed tells whether a commit whose answer was lost was done.
func (w *writer) committed(ctx context.Context, expected digest.Digest, err error) error {
	if expected == "" {
		return err
	}
	if _, infoErr := w.store.Info(ctx, expected); infoErr != nil {
		return err
	}
	return fmt.Errorf("content %s: %w", expected, errdefs.ErrAlreadyExists)
}
