package layers

import (
	"sync"
	"time"

	"github.com/slipwaybuild/slipway/solver/progress"
)

// fetchWaiter is one who waits for a download, with what it lends to it.
type fetchWaiter struct {
	fetcher Fetcher

	mu   sync.Mutex // guards the rest
	to   progress.Writer
	last progress.Status
	told time.Time
	over bool
}

// tellEvery keeps progress readable.
const tellEvery = 100 * time.Millisecond

func newFetchWaiter(f Fetcher, p progress.Writer, b RemoteBlob) *fetchWaiter {
	id := b.Descriptor.Digest.Encoded()
	now := time.Now()
	w := &fetchWaiter{fetcher: f, to: p}
	w.last = progress.Status{ID: id[:min(12, len(id))], Name: "downloading", Total: b.Descriptor.Size, Started: &now}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tell(now)
	return w
}

func (w *fetchWaiter) downloaded(current, total int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last.Current, w.last.Total = current, total
	if now := time.Now(); now.Sub(w.told) >= tellEvery {
		w.tell(now)
	}
}

// extracting says that all bytes are here and are being worked on.
func (w *fetchWaiter) extracting() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last.Name = "extracting"
	w.tell(time.Now())
}

// finish ends the line; nothing is written after it. A line without an end would hang viewers.
func (w *fetchWaiter) finish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.last.Completed = &now
	w.tell(now)
	w.over = true
}

// tell is called under mu.
func (w *fetchWaiter) tell(now time.Time) {
	if w.to == nil || w.over {
		return
	}
	w.told = now
	w.last.Timestamp = now
	w.to.Status(w.last)
}
