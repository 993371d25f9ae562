package history

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	controlapi "github.com/moby/buildkit/api/services/control"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/progress"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open opens a history that is closed, and found to hold no blob too many, when the test ends.
func open(t *testing.T, o Options) *Store {
	t.Helper()
	if o.Root == "" {
		o.Root = filepath.Join(t.TempDir(), "history")
	}
	if o.MaxEntries == 0 && o.MaxAge == 0 {
		o.MaxEntries, o.MaxAge = UsualEntries, UsualAge
	}
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func begin(t *testing.T, s *Store, start Start) *Build {
	t.Helper()
	b, err := s.Begin(start)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// story appends a step that says text and ends.
func story(b *Build, text string) {
	id := digest.FromString(text)
	started := time.Now()
	completed := started.Add(time.Second)
	b.Append(progress.Event{Vertex: &progress.Vertex{ID: id, Name: text, Started: &started}})
	b.Append(progress.Event{Log: &progress.Log{Vertex: id, Stream: progress.Stdout, Data: []byte(text), Timestamp: started}})
	b.Append(progress.Event{Vertex: &progress.Vertex{ID: id, Name: text, Started: &started, Completed: &completed}})
}

// build is a build from its beginning to its end.
func build(t *testing.T, s *Store, ref string, failure error) {
	t.Helper()
	b := begin(t, s, Start{Ref: ref})
	story(b, "step of "+ref)
	if err := b.End(t.Context(), nil, failure); err != nil {
		t.Fatal(err)
	}
}

// told reads a build's story as one text of its logs.
func told(t *testing.T, s *Store, ref string) string {
	t.Helper()
	r, err := s.Follow(t.Context(), ref, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var text strings.Builder
	for {
		ev, err := r.Next(t.Context())
		if errors.Is(err, io.EOF) {
			return text.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		if ev.Log != nil {
			text.Write(ev.Log.Data)
		}
	}
}

// list is what a listener that leaves early is told.
func list(t *testing.T, s *Store, r *controlapi.BuildHistoryRequest) []*controlapi.BuildHistoryEvent {
	t.Helper()
	r.EarlyExit = true
	var events []*controlapi.BuildHistoryEvent
	err := s.Listen(t.Context(), r, func(ev *controlapi.BuildHistoryEvent) error {
		events = append(events, ev)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return events
}

func refs(events []*controlapi.BuildHistoryEvent) string {
	var names []string
	for _, ev := range events {
		names = append(names, ev.Record.Ref)
	}
	return strings.Join(names, " ")
}

func record(t *testing.T, s *Store, ref string) *controlapi.BuildHistoryRecord {
	t.Helper()
	r, err := s.Record(ref)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func readBlob(t *testing.T, s *Store, d *controlapi.Descriptor) []byte {
	t.Helper()
	if d == nil {
		t.Fatal("there is no such blob")
	}
	b, err := content.ReadBlob(t.Context(), s.Content(), ocispecs.Descriptor{Digest: digest.Digest(d.Digest), Size: d.Size})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func countBlobs(t *testing.T, s *Store) int {
	t.Helper()
	n := 0
	if err := s.Content().Walk(t.Context(), func(content.Info) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// listener is told of changes until the test ends or leave is called.
type listener struct {
	events chan *controlapi.BuildHistoryEvent
	leave  func()
	ended  chan error
}

func listen(t *testing.T, s *Store, r *controlapi.BuildHistoryRequest) *listener {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &listener{events: make(chan *controlapi.BuildHistoryEvent, 100), ended: make(chan error, 1)}
	go func() {
		l.ended <- s.Listen(ctx, r, func(ev *controlapi.BuildHistoryEvent) error {
			l.events <- ev
			return nil
		})
	}()
	l.leave = func() { cancel(); <-l.ended }
	return l
}

func (l *listener) next(t *testing.T, kind controlapi.BuildHistoryEventType, ref string) *controlapi.BuildHistoryRecord {
	t.Helper()
	select {
	case ev := <-l.events:
		if ev.Type != kind || ev.Record.Ref != ref {
			t.Fatalf("told of %s %s, want %s %s", ev.Type, ev.Record.Ref, kind, ref)
		}
		return ev.Record
	case err := <-l.ended:
		t.Fatalf("the listener ended: %v", err)
	case <-time.After(30 * time.Second):
		t.Fatalf("not told of %s %s", kind, ref)
	}
	return nil
}
