package layers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/flight"
)

// download reads a compressed blob through the Fetchers of whoever waits for it: when one breaks off, the next goes on at the
// same byte, while the digest of what was read runs on. Read is called by one goroutine at a time.
type download struct {
	ctx    context.Context
	call   *flight.Call
	blob   RemoteBlob
	hash   digest.Digester
	offset atomic.Int64
	eof    bool
	err    error // of the last try

	tries map[*fetchWaiter]int // failed in a row without a byte gained
	from  *fetchWaiter         // whose Fetcher is in use

	mu     sync.Mutex // guards body and closed
	body   io.ReadCloser
	closed bool
	stop   func() bool
}

// maxTries is how often in a row one Fetcher may fail in the middle of a download.
const maxTries = 3

// firstPause is how long the second try in a row waits; every further one twice as long.
const firstPause = 200 * time.Millisecond

func newDownload(c *flight.Call, b RemoteBlob) *download {
	ctx := c.Context()
	d := &download{
		ctx: ctx, call: c, blob: b,
		hash: b.Descriptor.Digest.Algorithm().Digester(), tries: map[*fetchWaiter]int{},
	}
	// Closing the body wakes a read that does not look at the context.
	d.stop = context.AfterFunc(ctx, d.shut)
	return d
}

// close ends the download. It may be called again.
func (d *download) close() {
	d.stop()
	d.shut()
}

// shut is also called when the context ends, which may be before newDownload returns.
func (d *download) shut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.dropBody()
}

// dropBody is called under mu.
func (d *download) dropBody() {
	if d.body != nil {
		_ = d.body.Close() // what was read of it is judged by its digest
		d.body = nil
	}
}

func (d *download) Read(p []byte) (int, error) {
	for {
		if d.eof {
			return 0, io.EOF
		}
		body, err := d.current()
		if err != nil {
			return 0, err
		}
		n, err := body.Read(p)
		if n > 0 {
			return d.took(p[:n], err)
		}
		if err == nil {
			continue
		}
		if err := d.broke(err); err != nil {
			return 0, err
		}
	}
}

// took accounts for bytes that were read.
func (d *download) took(p []byte, err error) (int, error) {
	off := d.offset.Add(int64(len(p)))
	size := d.blob.Descriptor.Size
	if size > 0 && off > size {
		return 0, fmt.Errorf("compressed layer is longer than its %d bytes", size)
	}
	_, _ = d.hash.Hash().Write(p) // a hash takes all
	clear(d.tries)
	for _, w := range d.waiters() {
		w.downloaded(off, size)
	}
	if err != nil {
		if err := d.broke(err); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// broke says what the end of a body means: nil if reading goes on, be it to the end of the file.
func (d *download) broke(err error) error {
	d.mu.Lock()
	d.dropBody()
	d.mu.Unlock()
	if d.ctx.Err() != nil {
		return context.Cause(d.ctx)
	}
	off, size := d.offset.Load(), d.blob.Descriptor.Size
	if errors.Is(err, io.EOF) {
		if off >= size {
			d.eof = true
			for _, w := range d.waiters() {
				w.extracting()
			}
			return nil
		}
		err = io.ErrUnexpectedEOF
	}
	d.err = fmt.Errorf("download broke off after %d of %d bytes: %w", off, size, err)
	d.tries[d.from]++
	if errors.Is(err, ErrGivenUp) {
		d.tries[d.from] = maxTries // two loops, one around the other, would wait for minutes
	}
	return nil
}

// current returns the body to read from, opening one if there is none.
func (d *download) current() (io.Reader, error) {
	d.mu.Lock()
	body, closed := d.body, d.closed
	d.mu.Unlock()
	if closed {
		if d.ctx.Err() != nil {
			return nil, context.Cause(d.ctx)
		}
		return nil, io.ErrClosedPipe
	}
	if body != nil {
		return body, nil
	}
	for {
		w := d.pick()
		if w == nil {
			if d.err == nil {
				d.err = ErrNotLocal // those who wait have all left
			}
			return nil, d.err
		}
		if err := d.pause(); err != nil {
			return nil, err
		}
		body, err := d.openAt(w.fetcher, d.offset.Load())
		if err == nil {
			return body, d.install(body)
		}
		if d.ctx.Err() != nil {
			return nil, context.Cause(d.ctx)
		}
		d.err = err
		d.tries[d.from]++
		if d.offset.Load() == 0 {
			d.tries[d.from] = maxTries // refused from the beginning: asking again is the Fetcher's own affair
		}
	}
}

func (d *download) install(body io.ReadCloser) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.body = body
	if d.closed {
		d.dropBody()
		return context.Canceled
	}
	return nil
}

// waiters are those who wait now, in the order they came.
func (d *download) waiters() []*fetchWaiter {
	participants := d.call.Participants()
	list := make([]*fetchWaiter, len(participants))
	for i, p := range participants {
		list[i] = p.(*fetchWaiter)
	}
	return list
}

// pick chooses, of those who wait now, the one that failed least.
func (d *download) pick() *fetchWaiter {
	var best *fetchWaiter
	least := maxTries
	for _, w := range d.waiters() {
		if d.tries[w] < least {
			best, least, d.from = w, d.tries[w], w
		}
	}
	return best
}

func (d *download) pause() error {
	n := d.tries[d.from]
	if n < 2 {
		return nil
	}
	t := time.NewTimer(firstPause << (n - 2))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-d.ctx.Done():
		return context.Cause(d.ctx)
	}
}

// openAt opens the blob at an offset, reading up to there if the Fetcher cannot begin in the middle.
func (d *download) openAt(f Fetcher, offset int64) (io.ReadCloser, error) {
	if at, ok := f.(OffsetFetcher); ok && offset > 0 {
		return at.FetchAt(d.ctx, d.blob, offset)
	}
	body, err := f.Fetch(d.ctx, d.blob)
	if err != nil || offset == 0 {
		return body, err
	}
	if _, err := io.CopyN(io.Discard, &contextReader{d.ctx, body}, offset); err != nil {
		return nil, errors.Join(err, body.Close())
	}
	return body, nil
}

// suspect tells whether unpacking may have ended with err because the bytes are not those that were asked for, which their digest
// tells once all are read.
func (d *download) suspect(err error) bool {
	var noSpace *NoSpaceError
	return d.ctx.Err() == nil && !errors.As(err, &noSpace) && !errors.Is(err, ErrTooBig) && (d.err == nil || !errors.Is(err, d.err))
}

// verify compares what was downloaded with its digest, after unpacking it ended with err. It returns nil if the bytes are
// right, or if unpacking ended for a reason that has nothing to do with them.
func (d *download) verify(err error) error {
	if err != nil && !d.suspect(err) {
		return nil
	}
	if !d.eof {
		if err == nil {
			return fmt.Errorf("compressed layer was not read to its end")
		}
		return nil
	}
	if got := d.hash.Digest(); got != d.blob.Descriptor.Digest {
		return &DigestMismatchError{What: "compressed layer", Want: d.blob.Descriptor.Digest, Got: got}
	}
	return nil
}
