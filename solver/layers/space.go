package layers

import (
	"cmp"
	"context"
	"io"
	"slices"
	"time"

	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// reservation is space promised to a writer below the limit. It is not safe for concurrent use.
type reservation struct {
	s    *Store
	have int64 // promised
	need int64 // asked for
}

// step is by how much a reservation for bytes of unknown number grows.
const step = 16 << 20

func (s *Store) newReservation() *reservation { return &reservation{s: s} }

// grow asks for n bytes more, evicting what nobody holds if the limit says so.
func (r *reservation) grow(ctx context.Context, n int64) error {
	r.need += n
	if r.need <= r.have {
		return nil
	}
	more := r.need - r.have
	if n < step {
		more = max(more, min(step, r.s.o.Limit/16))
	}
	if err := r.s.reserve(ctx, more); err != nil {
		return err
	}
	r.have += more
	return nil
}

// end gives the promise back: what was written is accounted for by now, or gone.
func (r *reservation) end() {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.s.reserved -= r.have
	r.have = 0
}

// reserve promises n bytes. What is evicted for it must be deleted before the promise can be given.
func (s *Store) reserve(ctx context.Context, n int64) error {
	for {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return ErrClosed
		}
		over := s.overLimit(n)
		if over <= 0 {
			s.reserved += n
			s.mu.Unlock()
			return nil
		}
		freed := s.evict(over)
		err := &NoSpaceError{Limit: s.o.Limit, Used: s.used + s.reserved, Wanted: n}
		s.mu.Unlock()
		if freed < over && s.trash.pending() == 0 {
			return err
		}
		if freed == 0 && s.overAfterTrash(n) > 0 {
			return err
		}
		if err := s.trash.drain(ctx); err != nil {
			return err
		}
	}
}

// overLimit is how many bytes too many there would be with n more. It is called under mu.
func (s *Store) overLimit(n int64) int64 {
	if s.o.Limit <= 0 {
		return 0
	}
	return s.used + s.reserved + s.trash.pending() + s.overhead() + n - s.o.Limit
}

func (s *Store) overAfterTrash(n int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.o.Limit <= 0 {
		return 0
	}
	return s.used + s.reserved + s.overhead() + n - s.o.Limit
}

// overhead is what the store itself takes on disk and cannot do without: little, next to a limit worth setting.
func (s *Store) overhead() int64 { return allocatedAt(s.at.index()) }

// evict throws away what nobody holds until n bytes are on their way out, and returns how many are. It is called under mu.
func (s *Store) evict(n int64) (freed int64) {
	now := s.now()
	var free []*layer
	for _, l := range s.layers {
		if l.free() && l.size() > 0 {
			free = append(free, l)
		}
	}
	// Nothing is known here of what a layer cost to make, so the longest unused and biggest goes first.
	weight := func(l *layer) float64 { return float64(now.Sub(l.LastUsed)+time.Second) * float64(l.size()) }
	slices.SortFunc(free, func(a, b *layer) int { return cmp.Compare(weight(b), weight(a)) })
	before := s.used
	for _, l := range free {
		if s.used <= before-n {
			break
		}
		s.log.Info("evict layer to stay below the limit", "layer", l.ID, "size", l.size())
		s.forget(l)
	}
	if s.used > before-n {
		s.evictVolumes(before - n)
	}
	return before - s.used
}

// reservingReader reserves what is read through it, in steps.
type reservingReader struct {
	io.Reader
	ctx context.Context
	r   *reservation
}

func (r *reservingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if n > 0 {
		if rerr := r.r.grow(r.ctx, int64(n)); rerr != nil {
			return 0, rerr
		}
	}
	return n, err
}

// reservingSource reserves what the entries that pass through it will take.
type reservingSource struct {
	fstree.Source
	r *reservation
}

func (s *reservingSource) Next(ctx context.Context) (fstree.Entry, func(context.Context) (io.ReadCloser, error), error) {
	e, open, err := s.Source.Next(ctx)
	if err != nil {
		return e, open, err
	}
	const perEntry = 1 << 10 // header, inode, rounding
	size := int64(perEntry)
	if open != nil {
		size += e.Size
	}
	return e, open, s.r.grow(ctx, size)
}
