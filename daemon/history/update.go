package history

import (
	"context"
	"errors"
	"fmt"
	"os"

	controlapi "github.com/moby/buildkit/api/services/control"
)

// Pin says whether a record stays whatever its age.
func (s *Store) Pin(ref string, pinned bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.ended[ref]
	if e != nil && e.pinned == pinned {
		return nil
	}
	if err := s.change(ref, func(kept *saved) { kept.record.Pinned = pinned }); err != nil {
		return err
	}
	s.retainLater()
	return nil
}

// Delete forgets a build that ended, pinned or not. Its blobs stay for as long as somebody listens to it by its ref. For a build that is
// not there the error is ErrNotFound, for one that runs ErrRunning.
func (s *Store) Delete(ref string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running[ref] != nil {
		return fmt.Errorf("%w: %s", ErrRunning, ref)
	}
	if f := s.late[ref]; f != nil {
		f.abandon()
	}
	if s.ended[ref] == nil {
		return fmt.Errorf("%w: %s", ErrNotFound, ref)
	}
	return s.forget(ref)
}

// Finalize waits until nothing more comes to the record of a build that ended: its trace is stored now, not some seconds later.
func (s *Store) Finalize(ctx context.Context, ref string) error {
	s.mu.Lock()
	f := s.late[ref]
	s.mu.Unlock()
	if f == nil {
		return nil
	}
	f.trigger()
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// forget removes records and what belongs to them, and tells listeners. It is called under mu.
func (s *Store) forget(refs ...string) error {
	if err := s.db.remove(refs...); err != nil {
		return fmt.Errorf("remove records of builds: %w", err)
	}
	var errs []error
	for _, ref := range refs {
		e := s.ended[ref]
		delete(s.ended, ref)
		if h := s.readers[ref]; h != nil {
			h.blobs = append(h.blobs, e.blobs...)
		} else {
			errs = append(errs, s.blobs.drop(context.Background(), digests(e.blobs)...))
		}
		if err := os.Remove(s.journalPath(ref)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove journal of build %s: %w", ref, err))
		}
		s.publish(controlapi.BuildHistoryEventType_DELETED, &controlapi.BuildHistoryRecord{Ref: ref})
	}
	return errors.Join(errs...)
}
