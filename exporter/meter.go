package exporter

import (
	"sync"
	"time"

	"github.com/slipwaybuild/slipway/solver/progress"
)

// meterEvery is how often a moving status is written.
const meterEvery = 100 * time.Millisecond

// Sent counts what goes out and shows it as one status. Safe for concurrent use.
type Sent struct {
	p progress.Writer

	mu     sync.Mutex
	status progress.Status
	shown  time.Time
}

// Meter shows status from now on.
func Meter(p progress.Writer, status progress.Status) *Sent {
	started := time.Now()
	status.Started = &started
	s := &Sent{p: p, status: status, shown: started}
	p.Status(status)
	return s
}

// Add counts n more bytes.
func (s *Sent) Add(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Current += n
	if time.Since(s.shown) >= meterEvery {
		s.shown = time.Now()
		s.p.Status(s.status)
	}
}

// Done ends the status.
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
