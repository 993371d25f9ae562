package guard

import (
	"sync"
	"time"
)

const (
	// quiet is how long a stream must say nothing until what was held back of it is let go.
	quiet = 250 * time.Millisecond
	// maxLetGo is how many bytes are let go then: as much as a prompt may share with a value by chance, and too little to be half of
	// a value. More is held until the stream goes on or ends.
	maxLetGo = 6
)

// Masker masks values in a stream, however it is split. What may be the beginning of a value is held back: at most as much as the
// longest form of one. It is safe for concurrent use. Whoever made it calls Flush when the stream ends.
type Masker struct {
	matcher func() *Matcher
	out     func([]byte)

	mu    sync.Mutex // guards what follows, and the order of out
	buf   []byte
	told  int // what leads buf and went out already, being kept for it may begin a value
	under int // what leads buf and lies under a mask that went out
	timer *time.Timer
}

// NewMasker returns a Masker that asks for the values whenever it needs them and hands what it lets pass to out, which must not keep
// the bytes and must not call the Masker.
func NewMasker(matcher func() *Matcher, out func([]byte)) *Masker {
	return &Masker{matcher: matcher, out: out}
}

// Write takes more of the stream. It never fails.
func (w *Masker) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.matcher()
	if m == nil && len(w.buf) == 0 {
		w.out(p)
		return len(p), nil
	}
	w.buf = append(w.buf, p...)
	keep := len(w.buf)
	if m != nil {
		keep = m.begun(w.buf)
	}
	w.pass(m, max(keep, w.told))
	w.forget(keep)
	w.wait()
	return len(p), nil
}

// Flush lets go what is held back.
func (w *Masker) Flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pass(w.matcher(), len(w.buf))
	w.forget(len(w.buf))
	w.wait()
}

// pass hands out buf up to an end. The caller holds the lock.
func (w *Masker) pass(m *Matcher, end int) {
	var spans []span
	if m != nil {
		spans = m.spans(w.buf, true)
	}
	if w.under > 0 {
		spans = merged(append(spans, span{0, w.under}))
	}
	var out []byte
	at := w.told
	for i, s := range spans {
		if s.end <= at {
			continue
		}
		if s.start >= end {
			break
		}
		if s.start > at {
			out = append(out, w.buf[at:s.start]...)
		}
		if masked := i == 0 && w.under > 0; !masked {
			out = append(out, Mask...)
		}
		w.under = s.end
		at = min(s.end, end)
	}
	if at < end {
		out = append(out, w.buf[at:end]...)
	}
	w.told = max(w.told, end)
	if len(out) > 0 {
		w.out(out)
	}
}

// forget drops what leads buf. The caller holds the lock.
func (w *Masker) forget(n int) {
	w.buf = append(w.buf[:0], w.buf[n:]...)
	w.told, w.under = max(w.told-n, 0), max(w.under-n, 0)
}

// wait sets the clock for what is held back. The caller holds the lock.
func (w *Masker) wait() {
	held := len(w.buf) - w.told
	switch {
	case held == 0 || held > maxLetGo:
		if w.timer != nil {
			w.timer.Stop()
		}
	case w.timer == nil:
		w.timer = time.AfterFunc(quiet, w.letGo)
	default:
		w.timer.Reset(quiet)
	}
}

// letGo hands out what was held back, and remembers it: should the rest of a value follow, that is masked.
func (w *Masker) letGo() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.buf)-w.told <= maxLetGo {
		w.pass(w.matcher(), len(w.buf))
	}
}
