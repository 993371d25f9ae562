package filesync

import (
	"context"
	"errors"
	"fmt"
	"io"
	gofs "io/fs"

	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sync/errgroup"
)

// item is an entry on its way to the stream.
type item struct {
	stat  *types.Stat
	ready chan struct{} // closed when data is there; nil if none is to come
	data  []byte
}

// walk sends the STATs. Files small enough to go inline are read by workers while the walk goes on. Sockets are left out: without
// who listened they are nothing, and the protocol has no word for them.
func (s *sender) walk(ctx context.Context) error {
	items := make(chan *item, aheadItems)
	reads := make(chan *item, aheadItems)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(items)
		defer close(reads)
		return s.src.Walk(ctx, func(st *types.Stat) error {
			if gofs.FileMode(st.Mode)&gofs.ModeSocket != 0 {
				return nil
			}
			it := &item{stat: st}
			if hasContent(st) && st.Size > 0 && st.Size <= s.inline {
				it.ready = make(chan struct{})
				if !give(ctx, reads, it) {
					return context.Cause(ctx)
				}
			}
			if !give(ctx, items, it) {
				return context.Cause(ctx)
			}
			return nil
		})
	})
	if s.inline > 0 {
		for range senderWorkers {
			g.Go(func() error {
				for it := range reads {
					s.readInline(ctx, it)
				}
				return nil
			})
		}
	}
	g.Go(func() error { return s.emit(ctx, items) })
	return g.Wait()
}

func give(ctx context.Context, c chan<- *item, it *item) bool {
	select {
	case c <- it:
		return true
	case <-ctx.Done():
		return false
	}
}

// readInline reads a small file. Whatever goes wrong, or is larger than announced, is left to a request.
func (s *sender) readInline(ctx context.Context, it *item) {
	defer close(it.ready)
	f, err := s.src.Open(ctx, it.stat.Path)
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }() // opened for reading
	buf := make([]byte, it.stat.Size+1)
	n, err := io.ReadFull(f, buf)
	if (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) && int64(n) <= it.stat.Size {
		it.data = buf[:n]
	}
}

func (s *sender) emit(ctx context.Context, items <-chan *item) error {
	var id uint32
	for it := range items {
		if it.ready != nil {
			select {
			case <-it.ready:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if hasContent(it.stat) {
			s.mu.Lock()
			s.files[id] = job{id, it.stat.Path, it.stat.Size}
			s.mu.Unlock()
		}
		id++
		if err := s.send(&types.Packet{Type: types.PACKET_STAT, Stat: it.stat, Data: it.data}); err != nil {
			return sendError(err, it.stat)
		}
		if s.progress != nil && len(it.data) > 0 {
			s.progress(int64(len(it.data)))
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return s.send(&types.Packet{Type: types.PACKET_STAT})
}

func sendError(err error, st *types.Stat) error {
	if errors.Is(err, io.EOF) {
		return err
	}
	return fmt.Errorf("send %q: %w", st.Path, err)
}
