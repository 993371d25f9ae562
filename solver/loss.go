package solver

import (
	"context"
	"sync"
)

// losses are the results whose bytes were found to be gone since the solver was made. Many may hold, or have looked up, what
// one finds lost; a count of losses tells what they have from what was made since. Its zero value is ready.
type losses struct {
	mu    sync.Mutex // guards what follows
	count int64
	last  map[Identity]loss
}

type loss struct {
	at int64 // the count with this loss
	// stuck is why the record is lost that the store could not forget; nil otherwise.
	stuck error
}

// now is the birth of what is looked up or made from here on.
func (l *losses) now() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

// covers tells whether o is known to be lost.
func (l *losses) covers(o *outcome) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return o.born < l.last[o.identity].at
}

// stuck tells why the record of id must not be believed; nil if it may.
func (l *losses) stuck(id Identity) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last[id].stuck
}

// since tells whether anything under id was found lost after the count was birth.
func (l *losses) since(id Identity, birth int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last[id].at > birth
}

func (l *losses) add(id Identity, stuck error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil {
		l.last = map[Identity]loss{}
	}
	l.count++
	l.last[id] = loss{at: l.count, stuck: stuck}
}

// replaced says that the store has a new record of id.
func (l *losses) replaced(id Identity) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if last, ok := l.last[id]; ok && last.stuck != nil {
		l.last[id] = loss{at: last.at}
	}
}

// forget makes the store forget the record of what is lost, unless somebody did so before: then the record is a new one. If the
// store cannot, the solver passes the record over by itself.
func (s *Solver) forget(ctx context.Context, lost *outcome, why error) {
	if s.losses.covers(lost) {
		return
	}
	err := s.store.Forget(ctx, lost.identity)
	if err == nil {
		why = nil
	} else {
		s.log.Warn("forget lost record", "identity", lost.identity, "lost", why, "error", err)
	}
	// Only now: what was looked up in between may be the old record.
	s.losses.add(lost.identity, why)
}
