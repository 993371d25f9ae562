package solver

import (
	"fmt"
	"sync"
	"time"

	"github.com/slipwaybuild/slipway/solver/progress"
)

// hub hands what one piece of work writes to the steps of all builds that wait for it. It is a [progress.Sink]. Who joins late
// is told first what was written before; nobody who works waits for that but for its last bit.
type hub struct {
	tape progress.Tape

	mu   sync.Mutex // guards what follows; held while an event goes out, so that all get all in one order
	live map[*report]int
	left map[*report]int64 // how far those who left had got, in case they come back
}

// catchUp is how many bytes a late joiner may lag behind when it is made to join: they are played with the lock held.
const catchUp = 64 << 10

func newHub(tempDir string) *hub {
	return &hub{tape: progress.Tape{Dir: tempDir}, live: map[*report]int{}, left: map[*report]int64{}}
}

// Append hands ev to everyone.
func (h *hub) Append(ev progress.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tape.Append(ev)
	for r := range h.live {
		r.Append(ev)
	}
}

// join makes r, which waits for the work, one of those who are told, until the returned function is called.
func (h *hub) join(r *report) (leave func()) {
	r.started()
	return h.quietJoin(r)
}

// quietJoin is join for work that is none of the step's own: the step is seen to start when there is something to tell.
func (h *hub) quietJoin(r *report) (leave func()) {
	h.mu.Lock()
	at := h.left[r]
	if h.live[r] > 0 {
		at = h.tape.Len()
	}
	h.mu.Unlock()

	var err error
	for err == nil && h.tape.Len()-at > catchUp {
		at, err = h.tape.Play(at, r.Append)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.live[r] == 0 && err == nil {
		_, err = h.tape.Play(at, r.Append)
	}
	if err != nil {
		r.Append(progress.Event{Log: &progress.Log{
			Stream: progress.Stderr, Data: fmt.Appendf(nil, "[some earlier output is missing: %v]\n", err), Timestamp: time.Now(),
		}})
	}
	h.live[r]++
	return func() { h.leave(r) }
}

func (h *hub) leave(r *report) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.live[r]--
	if h.live[r] == 0 {
		delete(h.live, r)
		h.left[r] = h.tape.Len()
	}
}

// close forgets what was written. Nobody joins any more.
func (h *hub) close() error { return h.tape.Close() }
