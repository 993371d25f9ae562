package history

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// finalizer waits for the last spans of a build that ended.
type finalizer struct {
	trigger func()        // do not wait longer
	now     chan struct{} // closed by trigger
	done    chan struct{} // closed when the trace is stored
	gone    bool          // the record is no more; guarded by the store's mu
}

func (f *finalizer) abandon() {
	f.gone = true
	f.trigger()
}

// startFinalizer stores the trace of a build when its client had time to hand over its spans. It is called under mu.
func (s *Store) startFinalizer(b *Build) {
	if b.start.Trace == nil {
		return
	}
	if s.closed {
		_ = s.abandonTrace(b)
		return
	}
	f := &finalizer{now: make(chan struct{}), done: make(chan struct{})}
	f.trigger = sync.OnceFunc(func() { close(f.now) })
	s.late[b.start.Ref] = f
	s.work.Go(func() {
		defer close(f.done)
		wait := time.NewTimer(lateSpans)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-f.now:
		}
		if err := s.finalize(b, f); err != nil {
			s.log.Warn("store the trace of a build", "ref", b.start.Ref, "error", err)
		}
	})
}

func (s *Store) finalize(b *Build, f *finalizer) error {
	s.mu.Lock()
	gone := f.gone
	if gone && s.late[b.start.Ref] == f {
		delete(s.late, b.start.Ref)
	}
	s.mu.Unlock()
	if gone {
		return s.abandonTrace(b)
	}
	ctx, cancel := context.WithTimeout(context.Background(), sealTime)
	defer cancel()
	story, err := b.journal.NewReader()
	if err != nil {
		story = nil // the record was forgotten meanwhile, or the disk is at fault; the other spans are still worth having
	} else {
		defer story.Close()
	}
	spans := 0
	desc, err := s.blobs.write(ctx, TraceType, func(w io.Writer) (err error) {
		spans, err = b.start.Trace.WriteTrace(w, story)
		return err
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.late[b.start.Ref] == f {
		delete(s.late, b.start.Ref)
	}
	if err != nil {
		return err
	}
	if spans == 0 || f.gone || s.ended[b.start.Ref] == nil {
		return s.blobs.drop(ctx, desc.Digest)
	}
	err = s.change(b.start.Ref, func(kept *saved) {
		kept.record.Trace = apiDescriptor(desc)
		kept.blobs = append(kept.blobs, desc.Digest.String())
	})
	if err != nil {
		return errors.Join(err, s.blobs.drop(ctx, desc.Digest))
	}
	return nil
}

// abandonTrace ends collecting the spans of a build that gets no record.
func (s *Store) abandonTrace(b *Build) error {
	if b.start.Trace == nil {
		return nil
	}
	_, err := b.start.Trace.WriteTrace(io.Discard, (*progress.Reader)(nil))
	return err
}

// change writes a record anew and tells listeners. It is called under mu.
func (s *Store) change(ref string, edit func(*saved)) error {
	e := s.ended[ref]
	if e == nil {
		return fmt.Errorf("%w: %s", ErrNotFound, ref)
	}
	r, err := s.db.record(ref)
	if err != nil {
		return err
	}
	kept := saved{record: r, blobs: append([]string(nil), e.blobs...)}
	edit(&kept)
	r.Generation++
	if err := s.put(kept); err != nil {
		return fmt.Errorf("write record of build %s: %w", ref, err)
	}
	s.ended[ref] = newEntry(kept)
	s.publish(controlapi.BuildHistoryEventType_COMPLETE, r)
	return nil
}
