package history

import (
	"os"
	"slices"
	"time"
)

// retainLater forgets old records without anybody waiting for it. It is called under mu.
func (s *Store) retainLater() {
	if !s.closed {
		s.work.Go(s.retain)
	}
}

// retain forgets the records that are old and not among the newest, and comes back when the next one will be.
func (s *Store) retain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	if s.expiry != nil {
		s.expiry.Stop()
		s.expiry = nil
	}
	var refs []string
	for ref, e := range s.ended {
		if !e.pinned {
			refs = append(refs, ref)
		}
	}
	if len(refs) <= s.o.MaxEntries {
		return
	}
	slices.SortFunc(refs, func(a, b string) int { return s.ended[b].completed.Compare(s.ended[a].completed) })
	limit := s.o.Now().Add(-s.o.MaxAge)
	surplus := refs[s.o.MaxEntries:]
	// They are sorted, so the old ones are at the end.
	n, _ := slices.BinarySearchFunc(surplus, limit, func(ref string, limit time.Time) int { return limit.Compare(s.ended[ref].completed) })
	old := surplus[n:]
	if n > 0 {
		next := s.ended[surplus[n-1]].completed.Sub(limit)
		s.expiry = time.AfterFunc(max(next, time.Second), func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.retainLater()
		})
	}
	if len(old) == 0 {
		return
	}
	for _, ref := range old {
		if f := s.late[ref]; f != nil {
			f.abandon()
		}
	}
	if err := s.forget(old...); err != nil {
		s.log.Warn("forget old builds", "error", err)
	}
}

// trimLoose removes the oldest journals of builds without a record. It is called under mu.
func (s *Store) trimLoose() {
	for len(s.loose) > unrecorded {
		_ = os.Remove(s.loose[0].journal.Path()) // a viewer reads on
		s.loose = s.loose[1:]
	}
}
