package exporter

import (
	"sync"
	"time"

	"github.com/slipwaybuild/slipway/solver/progress"
)

// meterEvery is how often a moving status is written.
const meterEvery = 100 * time.Millisecond

// Sent counts what goes out and shows it as one status, a few times a second. Safe for concurrent use.
type Sent struct {
	p progress.Writer

	mu     sync.Mutex
	status progress.Status
	shown  time.Time
}

// Meter shows status from now on. Done must be called in the end.
func Meter(p progress.Writer, status progress.Status) *Sent {
	started := time.Now()
	status.Started = &started
	s := &Sent{p: p, status: status, shown: started}
	p.Status(status)
	return s
}

// Add counts n more bytes; a negative n takes back what has to be sent again.
func (s *Sent) Add(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Current += n
	if now := time.Now(); now.Sub(s.shown) >= meterEvery {
		s.shown = now
		s.p.Status(s.status)
	}
}

// Done ends the status. Nothing may be added any more.
func (s *Sent) Done() {
	s.mu.Lock()
	defer s.mu.Unlock()
	completed := time.Now()
	s.status.Completed = &completed
	s.p.Status(s.status)
}

// Write counts what passes; with io.MultiWriter or io.TeeReader it measures a stream.
func (s *Sent) Write(b []byte) (int, error) {
	s.Add(int64(len(b)))
	return len(b), nil
}
