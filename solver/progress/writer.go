package progress

import (
	"bytes"
	"io"
	"sync"
	"time"

	digest "github.com/opencontainers/go-digest"
)

// NewWriter returns a [Writer] for the vertex id that appends to sink. It copies log bytes.
func NewWriter(sink Sink, id digest.Digest) Writer { return &writer{sink: sink, id: id} }

type writer struct {
	sink Sink
	id   digest.Digest
}

func (w *writer) Status(s Status) {
	s.Vertex = w.id
	if s.Timestamp.IsZero() {
		s.Timestamp = time.Now()
	}
	w.sink.Append(Event{Status: &s})
}

func (w *writer) Log(stream int, data []byte) {
	if len(data) == 0 {
		return
	}
	w.sink.Append(Event{Log: &Log{Vertex: w.id, Stream: stream, Data: bytes.Clone(data), Timestamp: time.Now()}})
}

func (w *writer) Warn(warning Warning) {
	warning.Vertex = w.id
	w.sink.Append(Event{Warning: &warning})
}

// DiscardWriter is a [Writer] that forgets.
var DiscardWriter Writer = NewWriter(Discard, "")

// LogWriter returns an io.Writer whose bytes become output of w's vertex on stream [Stdout] or [Stderr]. It never fails.
func LogWriter(w Writer, stream int) io.Writer { return logWriter{w: w, stream: stream} }

type logWriter struct {
	w      Writer
	stream int
}

func (l logWriter) Write(p []byte) (int, error) {
	l.w.Log(l.stream, p)
	return len(p), nil
}

// Memory is a [Sink] that keeps everything, for tests and short stories. Its zero value is ready.
type Memory struct {
	mu     sync.Mutex
	events []Event
}

// Append keeps ev.
func (m *Memory) Append(ev Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events = append(m.events, ev)
}

// Events returns what was appended so far, in order.
func (m *Memory) Events() []Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Event(nil), m.events...)
}
