package daemon

import (
	"crypto/rand"
	"io"
	"sync"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// Log shows what is written under a name, as the log of a step that begins with the first byte.
func (b *build) Log(name string) io.WriteCloser { return &stepLog{sink: b.sink, name: name} }

// stepLog is safe for concurrent use.
type stepLog struct {
	sink progress.Sink
	name string

	mu     sync.Mutex
	vertex *progress.Vertex // nil until something is written
	closed bool
}

func (l *stepLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, io.ErrClosedPipe
	}
	if len(p) == 0 {
		return 0, nil
	}
	if l.vertex == nil {
		started := time.Now()
		l.vertex = &progress.Vertex{ID: digest.FromString(l.name + "\x00" + rand.Text()), Name: l.name, Started: &started}
		shown := *l.vertex
		l.sink.Append(progress.Event{Vertex: &shown})
	}
	progress.NewWriter(l.sink, l.vertex.ID).Log(progress.Stderr, p)
	return len(p), nil
}

func (l *stepLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.vertex == nil {
		l.closed = true
		return nil
	}
	l.closed = true
	completed := time.Now()
	l.vertex.Completed = &completed
	l.sink.Append(progress.Event{Vertex: l.vertex})
	return nil
}
