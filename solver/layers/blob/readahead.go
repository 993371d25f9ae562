package blob

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"golang.org/x/sync/errgroup"
)

const (
	// readers is how many files are read at once. With nothing in the page cache, reading the source is all that counts.
	readers = 8
	// ahead is how many entries are looked at before they are written. With smallFile it bounds the memory.
	ahead     = 64
	smallFile = 256 << 10
)

// item is an entry on its way from a source to the tar.
type item struct {
	fstree.Entry
	open func(context.Context) (io.ReadCloser, error)
	// ready is closed when data and err are set; nil if nothing is read ahead.
	ready chan struct{}
	data  []byte
	err   error
	buf   *[]byte
}

func (it *item) wait(ctx context.Context) error {
	if it.ready == nil {
		return nil
	}
	select {
	case <-it.ready:
		return it.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// release gives back to pool what holds the data.
func (it *item) release(pool *sync.Pool) {
	if it.ready == nil {
		return
	}
	select {
	case <-it.ready:
		if it.buf != nil {
			pool.Put(it.buf)
		}
	default: // given up on: whoever reads still uses it
	}
}

// newBuffers returns a pool of room for small files.
func newBuffers() *sync.Pool {
	return &sync.Pool{New: func() any { return new([]byte) }}
}

// readAhead yields the entries of src in order, the content of small files being read by goroutines of g meanwhile, into
// buffers of pool.
func readAhead(ctx context.Context, g *errgroup.Group, src fstree.Source, pool *sync.Pool) <-chan *item {
	items := make(chan *item, ahead)
	jobs := make(chan *item, ahead)
	g.Go(func() error {
		defer close(items)
		defer close(jobs)
		return feed(ctx, src, items, jobs, func() {
			g.Go(func() error {
				for it := range jobs {
					it.read(ctx, pool)
				}
				return nil
			})
		})
	})
	return items
}

// feed hands on the entries, and those to be read to readers, each of which it has started when there is a file for it.
func feed(ctx context.Context, src fstree.Source, items, jobs chan<- *item, reader func()) error {
	for files := 0; ; {
		e, open, err := src.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		it := &item{Entry: e, open: open}
		if e.IsRegular() && e.Hardlink == "" && e.Size > 0 {
			if open == nil {
				return entryError(e.Path, ErrBadEntry, "file without content")
			}
			if e.Size <= smallFile {
				it.ready = make(chan struct{})
				if files++; files <= readers {
					reader()
				}
				select {
				case jobs <- it:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}
		select {
		case items <- it:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// read reads all of a small file.
func (it *item) read(ctx context.Context, pool *sync.Pool) {
	defer close(it.ready)
	if it.err = ctx.Err(); it.err != nil {
		return
	}
	r, err := it.open(ctx)
	if err != nil {
		it.err = &EntryError{it.Path, err}
		return
	}
	defer func() {
		if err := r.Close(); err != nil && it.err == nil {
			it.err = &EntryError{it.Path, err}
		}
	}()
	it.buf = pool.Get().(*[]byte)
	if int64(cap(*it.buf)) < it.Size {
		*it.buf = make([]byte, align(it.Size, 4<<10))
	}
	it.data = (*it.buf)[:it.Size]
	if n, err := io.ReadFull(r, it.data); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		it.err = entryError(it.Path, ErrBadEntry, "content ends %d bytes early", it.Size-int64(n))
	} else if err != nil {
		it.err = &EntryError{it.Path, err}
	} else {
		it.err = atEnd(r, it)
	}
}
