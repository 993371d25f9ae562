package history

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	controlapi "github.com/moby/buildkit/api/services/control"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/progress"
	bolt "go.etcd.io/bbolt"
)

const (
	started  = controlapi.BuildHistoryEventType_STARTED
	complete = controlapi.BuildHistoryEventType_COMPLETE
	deleted  = controlapi.BuildHistoryEventType_DELETED
)

func mustOpen(t *testing.T, s *Store, d *controlapi.Descriptor) content.ReaderAt {
	t.Helper()
	ra, err := s.Content().ReaderAt(t.Context(), ocispecs.Descriptor{Digest: digest.Digest(d.Digest)})
	if err != nil {
		t.Fatal(err)
	}
	return ra
}

func damage(t *testing.T, s *Store, ref string) {
	t.Helper()
	if err := s.settle(); err != nil {
		t.Fatal(err)
	}
	err := s.db.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(recordBucket).Put([]byte(ref), []byte("\xff\xff")) })
	if err != nil {
		t.Fatal(err)
	}
}

// fakeTrace writes text, if there is any.
type fakeTrace struct {
	text   string
	mu     sync.Mutex
	called int
}

func (f *fakeTrace) WriteTrace(w io.Writer, _ *progress.Reader) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.called++
	return io.WriteString(w, f.text)
}

func TestListen(t *testing.T) {
	s := open(t, Options{})
	l := listen(t, s, &controlapi.BuildHistoryRequest{})
	defer l.leave()
	b := begin(t, s, Start{Ref: "a", Trace: &fakeTrace{text: "spans"}})
	if r := l.next(t, started, "a"); r.CompletedAt != nil {
		t.Errorf("a build that begins: %v", r)
	}
	if got := list(t, s, &controlapi.BuildHistoryRequest{ActiveOnly: true}); refs(got) != "a" || got[0].Type != started {
		t.Errorf("active: %v", got)
	}
	if err := b.End(t.Context(), nil, nil); err != nil {
		t.Fatal(err)
	}
	if r := l.next(t, complete, "a"); r.Trace != nil || r.Generation != 0 {
		t.Errorf("a build that ended: %v", r)
	}
	if err := s.Finalize(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if r := l.next(t, complete, "a"); r.Generation != 1 || string(readBlob(t, s, r.Trace)) != "spans" || r.Trace.MediaType != TraceType {
		t.Errorf("with its trace: %v", r)
	}
	if err := s.Pin("a", true); err != nil {
		t.Fatal(err)
	}
	if r := l.next(t, complete, "a"); !r.Pinned || r.Generation != 2 || r.Trace == nil {
		t.Errorf("pinned: %v", r)
	}
	if err := errors.Join(s.Pin("a", true), s.Finalize(t.Context(), "a"), s.Finalize(t.Context(), "none")); err != nil {
		t.Errorf("what changes nothing: %v", err)
	}
	if err := s.Pin("none", true); !errors.Is(err, ErrNotFound) {
		t.Errorf("pin nothing: %v", err)
	}
	build(t, s, "b", errors.New("bad"))
	l.next(t, started, "b")
	l.next(t, complete, "b")
	if got := list(t, s, &controlapi.BuildHistoryRequest{}); refs(got) != "b a" || got[0].Type != complete {
		t.Errorf("all, newest first: %s", refs(got))
	}
	if got := list(t, s, &controlapi.BuildHistoryRequest{Ref: "a"}); refs(got) != "a" {
		t.Errorf("one: %s", refs(got))
	}
	if got := list(t, s, &controlapi.BuildHistoryRequest{Ref: "buildx-test-history-api-feature", ActiveOnly: true}); len(got) != 0 {
		t.Errorf("none: %s", refs(got))
	}
	if got := list(t, s, &controlapi.BuildHistoryRequest{Limit: 1}); refs(got) != "b" {
		t.Errorf("limited: %s", refs(got))
	}
	if err := s.Delete("a"); err != nil {
		t.Fatal(err)
	}
	l.next(t, deleted, "a")
}

func TestInvalidListeners(t *testing.T) {
	s := open(t, Options{})
	for _, r := range []*controlapi.BuildHistoryRequest{{Limit: -1}, {Filter: []string{"startedAt<yesterday"}}, {Filter: []string{"status=="}}} {
		if err := s.Listen(t.Context(), r, nil); !errors.Is(err, ErrFilter) {
			t.Errorf("%v: %v", r, err)
		}
	}
	gone := errors.New("gone")
	build(t, s, "a", nil)
	if err := s.Listen(t.Context(), &controlapi.BuildHistoryRequest{}, func(*controlapi.BuildHistoryEvent) error { return gone }); !errors.Is(err, gone) {
		t.Errorf("a listener that went away: %v", err)
	}
	l := listen(t, s, &controlapi.BuildHistoryRequest{})
	l.next(t, complete, "a")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-l.ended; err != nil {
		t.Errorf("the history was closed: %v", err)
	}
	if err := s.Listen(t.Context(), &controlapi.BuildHistoryRequest{}, nil); err == nil {
		t.Error("a closed history is listened to")
	}
	if _, err := s.Begin(Start{Ref: "x"}); err == nil {
		t.Error("a closed history begins a build")
	}
}

// A listener that takes nothing holds up nobody, and is cut off.
func TestSlowListener(t *testing.T) {
	sub := &subscription{wake: make(chan struct{}, 1)}
	for range maxBehind + 1 {
		sub.add(&controlapi.BuildHistoryEvent{Record: &controlapi.BuildHistoryRecord{}})
	}
	if err := sub.follow(t.Context(), nil); !errors.Is(err, ErrBehind) {
		t.Errorf("it is told: %v", err)
	}
}

// Who listens to a build by its ref can read its blobs, whatever becomes of the record.
func TestListenerHoldsBlobs(t *testing.T) {
	s := open(t, Options{})
	build(t, s, "r", nil)
	first := listen(t, s, &controlapi.BuildHistoryRequest{Ref: "r"})
	second := listen(t, s, &controlapi.BuildHistoryRequest{Ref: "r"})
	logs := first.next(t, complete, "r").Logs
	second.next(t, complete, "r")
	if err := s.Delete("r"); err != nil {
		t.Fatal(err)
	}
	first.next(t, deleted, "r")
	if got := list(t, s, &controlapi.BuildHistoryRequest{}); len(got) != 0 {
		t.Errorf("still listed: %s", refs(got))
	}
	first.leave()
	mustOpen(t, s, logs).Close()
	second.leave()
	if _, err := s.Content().Info(t.Context(), digest.Digest(logs.Digest)); !errdefs.IsNotFound(err) {
		t.Errorf("the blob of a deleted build: %v", err)
	}
}

func TestRetention(t *testing.T) {
	now := time.Now()
	var mu sync.Mutex
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	pass := func(d time.Duration) { mu.Lock(); defer mu.Unlock(); now = now.Add(d) }
	s := open(t, Options{MaxEntries: 3, MaxAge: time.Hour, Now: clock})
	for i := range 6 {
		build(t, s, fmt.Sprint("b", i), nil)
		pass(time.Minute)
	}
	s.retain()
	if got := refs(list(t, s, &controlapi.BuildHistoryRequest{})); got != "b5 b4 b3 b2 b1 b0" {
		t.Errorf("young ones: %s", got)
	}
	if err := s.Pin("b0", true); err != nil {
		t.Fatal(err)
	}
	pass(56 * time.Minute) // b0 and b1 are older than an hour, b2 is just that
	s.retain()
	if got := refs(list(t, s, &controlapi.BuildHistoryRequest{})); got != "b5 b4 b3 b2 b0" && got != "b5 b4 b3 b0" {
		t.Errorf("old and beyond the newest three: %s", got)
	}
	pass(time.Hour)
	s.retain()
	if got := refs(list(t, s, &controlapi.BuildHistoryRequest{})); got != "b5 b4 b3 b0" {
		t.Errorf("all old: %s", got)
	}
	if n := countBlobs(t, s); n != 4 {
		t.Errorf("%d blobs", n)
	}
	if err := s.Pin("b0", false); err != nil {
		t.Fatal(err)
	}
	s.retain()
	if got := refs(list(t, s, &controlapi.BuildHistoryRequest{})); got != "b5 b4 b3" {
		t.Errorf("no longer pinned: %s", got)
	}
}

// A thousand builds at once and in turn leave a thousand records, or as many as are wanted, and nothing else.
func TestThousandBuilds(t *testing.T) {
	s := open(t, Options{MaxEntries: 20, MaxAge: 1})
	l := listen(t, s, &controlapi.BuildHistoryRequest{Ref: "b500"})
	var wg sync.WaitGroup
	todo := make(chan string)
	for range 16 {
		wg.Go(func() {
			for ref := range todo {
				b, err := s.Begin(Start{Ref: ref, Trace: &fakeTrace{}})
				if err != nil {
					t.Error(err)
					continue
				}
				story(b, ref)
				if err := b.End(context.Background(), nil, nil); err != nil {
					t.Error(err)
				}
				if err := s.Finalize(context.Background(), ref); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 1000 {
		todo <- fmt.Sprint("b", i)
	}
	close(todo)
	wg.Wait()
	l.next(t, started, "b500")
	l.next(t, complete, "b500")
	l.next(t, deleted, "b500")
	l.leave()
	s.retain()
	s.work.Wait()
	if n := len(list(t, s, &controlapi.BuildHistoryRequest{})); n != 20 {
		t.Errorf("%d records", n)
	}
	if n := countBlobs(t, s); n != 20 {
		t.Errorf("%d blobs", n)
	}
	if s.Active() != 0 || len(s.late) != 0 || len(s.readers) != 0 || len(s.subs) != 0 {
		t.Errorf("left: %d running, %d late, %d readers, %d listeners", s.Active(), len(s.late), len(s.readers), len(s.subs))
	}
}
