package daemon

import (
	"context"
	"path/filepath"
	"slices"
	"testing"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// A watch tells all that was written before its end, nothing of other steps, and nothing from before its beginning.
func TestWatchTellsAllOfAStep(t *testing.T) {
	t.Parallel()
	j, err := progress.Create(filepath.Join(t.TempDir(), "journal"))
	if err != nil {
		t.Fatal(err)
	}
	w := newWatches(j, func(context.Context) (*progress.Reader, error) { return j.NewReader() })
	defer func() {
		if err := w.close(); err != nil {
			t.Error(err)
		}
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}()
	one, other := digest.FromString("one"), digest.FromString("other")
	now := time.Now()
	write := func(id digest.Digest, text string) {
		w.Append(progress.Event{Vertex: &progress.Vertex{ID: id, Started: &now}})
		w.Append(progress.Event{Log: &progress.Log{Vertex: id, Data: []byte(text), Timestamp: now}})
		w.Append(progress.Event{Vertex: &progress.Vertex{ID: id, Started: &now, Completed: &now}})
	}
	watch := func(id digest.Digest, during func()) (told []string) {
		done, err := w.Watch(t.Context(), id, func(ev progress.Event) {
			if ev.Log != nil {
				told = append(told, string(ev.Log.Data))
			} else {
				told = append(told, "vertex")
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		during()
		if err := done(); err != nil {
			t.Error(err)
		}
		return told
	}
	write(one, "before")
	for range 100 { // the end may come before or after the reader is there
		got := watch(one, func() {
			write(other, "not this")
			write(one, "this")
		})
		if !slices.Equal(got, []string{"vertex", "this", "vertex"}) {
			t.Fatalf("%q", got)
		}
	}
	write(one, "between")
	if got := watch(one, func() {}); len(got) != 0 {
		t.Errorf("of a step that does nothing: %q", got)
	}
	if got := watch(digest.FromString("never"), func() { write(one, "else") }); len(got) != 0 {
		t.Errorf("of a step that never came: %q", got)
	}
}
