package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	controlapi "github.com/moby/buildkit/api/services/control"
)

// maxBehind is how many events a listener may be behind before it is cut off.
const maxBehind = 10000

// ErrBehind ends a listener that does not take what it asked for.
var ErrBehind = errors.New("the listener is too far behind")

// subscription is a listener's queue: whoever publishes never waits for it.
type subscription struct {
	mu     sync.Mutex
	queue  []*controlapi.BuildHistoryEvent
	behind bool
	ended  bool
	wake   chan struct{} // holds one
}

func (s *subscription) add(ev *controlapi.BuildHistoryEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.behind = s.behind || len(s.queue) >= maxBehind; !s.behind {
		s.queue = append(s.queue, ev)
	}
	s.poke()
}

func (s *subscription) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.poke()
}

func (s *subscription) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// take returns what is queued; done says that no more will come.
func (s *subscription) take() (list []*controlapi.BuildHistoryEvent, done bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.behind {
		return nil, true, ErrBehind
	}
	list, s.queue = s.queue, nil
	return list, s.ended, nil
}

// publish tells listeners. It is called under mu; nobody changes r afterwards.
func (s *Store) publish(kind controlapi.BuildHistoryEventType, r *controlapi.BuildHistoryRecord) {
	for sub := range s.subs {
		sub.add(&controlapi.BuildHistoryEvent{Type: kind, Record: r})
	}
}

// readerHold keeps the blobs of a ref's records for those who listen to it.
type readerHold struct {
	readers int
	blobs   []string // of records that were forgotten meanwhile
}

// Listen tells of builds: first of those that are there, newest first, at most r.Limit of them if it is not 0, then of every change until
// ctx or the store ends, unless r asks for an early exit. With a ref it is about that build alone, whose blobs then stay at least until
// Listen returns. What r.Filter says holds for all but deletions; an invalid one is ErrFilter. send may take its time; its error ends
// Listen. Events must not be changed.
func (s *Store) Listen(ctx context.Context, r *controlapi.BuildHistoryRequest, send func(*controlapi.BuildHistoryEvent) error) error {
	match, err := parseFilters(r.Filter, s.o.Now())
	if err != nil {
		return err
	}
	if r.Limit < 0 {
		return fmt.Errorf("%w: limit %d", ErrFilter, r.Limit)
	}
	sub := &subscription{wake: make(chan struct{}, 1)}
	list, leave, err := s.subscribe(sub, r)
	if err != nil {
		return err
	}
	defer leave()
	list = slices.DeleteFunc(list, func(ev *controlapi.BuildHistoryEvent) bool { return !match(ev.Record) })
	if r.Limit > 0 && len(list) > int(r.Limit) {
		list = list[:r.Limit]
	}
	for _, ev := range list {
		if err := send(ev); err != nil {
			return err
		}
	}
	if r.EarlyExit {
		return nil
	}
	return sub.follow(ctx, func(ev *controlapi.BuildHistoryEvent) error {
		deleted := ev.Type == controlapi.BuildHistoryEventType_DELETED
		if (r.Ref != "" && ev.Record.Ref != r.Ref) || (!deleted && !match(ev.Record)) {
			return nil
		}
		return send(ev)
	})
}

func (s *subscription) follow(ctx context.Context, send func(*controlapi.BuildHistoryEvent) error) error {
	for {
		list, done, err := s.take()
		if err != nil {
			return err
		}
		for _, ev := range list {
			if err := send(ev); err != nil {
				return err
			}
		}
		if done {
			return nil
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// subscribe returns what is there, newest first, and sends what comes after to sub, until leave is called.
func (s *Store) subscribe(sub *subscription, r *controlapi.BuildHistoryRequest) (list []*controlapi.BuildHistoryEvent, leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, errors.New("listen to builds: the history is closed")
	}
	for ref, b := range s.running {
		if !b.start.Unrecorded && (r.Ref == "" || r.Ref == ref) {
			list = append(list, &controlapi.BuildHistoryEvent{Type: controlapi.BuildHistoryEventType_STARTED, Record: b.snapshot()})
		}
	}
	if !r.ActiveOnly {
		stored, err := s.stored(r.Ref)
		if err != nil {
			return nil, nil, err
		}
		for _, rec := range stored {
			list = append(list, &controlapi.BuildHistoryEvent{Type: controlapi.BuildHistoryEventType_COMPLETE, Record: rec})
		}
	}
	slices.SortFunc(list, func(a, b *controlapi.BuildHistoryEvent) int {
		return cmp.Or(b.Record.CreatedAt.AsTime().Compare(a.Record.CreatedAt.AsTime()), cmp.Compare(a.Record.Ref, b.Record.Ref))
	})
	if !r.EarlyExit {
		s.subs[sub] = struct{}{}
	}
	s.holdBlobs(r.Ref)
	return list, func() { s.unsubscribe(sub, r.Ref) }, nil
}

// snapshot is the record as it is now.
func (b *Build) snapshot() *controlapi.BuildHistoryRecord {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.record.CloneVT()
	r.CompletedAt = nil // of a build whose end is being written
	r.NumTotalSteps, r.NumCachedSteps, r.NumCompletedSteps = 0, 0, 0
	b.sofar.fill(r)
	return r
}

// stored reads the records, or the one with ref.
func (s *Store) stored(ref string) (list []*controlapi.BuildHistoryRecord, err error) {
	if ref != "" {
		if s.ended[ref] == nil {
			return nil, nil
		}
		r, err := s.db.record(ref)
		return []*controlapi.BuildHistoryRecord{r}, err
	}
	all, err := s.db.records()
	for _, kept := range all {
		if s.ended[kept.record.Ref] != nil {
			list = append(list, kept.record)
		}
	}
	return list, err
}

// holdBlobs is called under mu.
func (s *Store) holdBlobs(ref string) {
	if ref == "" {
		return
	}
	if s.readers[ref] == nil {
		s.readers[ref] = &readerHold{}
	}
	s.readers[ref].readers++
}

func (s *Store) unsubscribe(sub *subscription, ref string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.subs, sub)
	h := s.readers[ref]
	if h == nil {
		return
	}
	if h.readers--; h.readers > 0 {
		return
	}
	delete(s.readers, ref)
	if err := s.blobs.drop(context.Background(), digests(h.blobs)...); err != nil {
		s.log.Warn("remove blobs of a forgotten build", "ref", ref, "error", err)
	}
}
