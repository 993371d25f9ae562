// Package traces collects the spans of a build, wherever they ended: the daemon's own, and those that clients hand over through
// OpenTelemetry's collector service. A [Recorder] keeps spans in memory only for traces that someone records.
package traces

import (
	"context"
	"slices"
	"sync"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// maxSpans bounds what one recording keeps, and maxEarly what is kept of traces that nobody records yet: a client may hand
// over its first spans before its build arrives.
const (
	maxSpans = 20000
	maxEarly = 1000
)

// Recorder is the end of all spans. It is safe for concurrent use.
type Recorder struct {
	mu     sync.Mutex
	active map[trace.TraceID][]*Recording
	early  []tracetest.SpanStub // oldest first
}

var _ sdktrace.SpanExporter = (*Recorder)(nil)

// NewRecorder returns a recorder that keeps nothing yet.
func NewRecorder() *Recorder { return &Recorder{active: map[trace.TraceID][]*Recording{}} }

// ExportSpans gives each span to those who record its trace.
func (r *Recorder) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	stubs := make([]tracetest.SpanStub, 0, len(spans))
	for _, s := range spans {
		stubs = append(stubs, tracetest.SpanStubFromReadOnlySpan(s))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range stubs {
		recordings := r.active[s.SpanContext.TraceID()]
		if len(recordings) == 0 {
			r.early = append(r.early, s)
		}
		for _, rec := range recordings {
			rec.add(s)
		}
	}
	if n := len(r.early) - maxEarly; n > 0 {
		r.early = slices.Delete(r.early, 0, n)
	}
	return nil
}

// Shutdown does nothing: what is recorded is its recorder's.
func (r *Recorder) Shutdown(context.Context) error { return nil }

// Record begins to keep the spans of the trace that at is in, those among them that ended lately. It returns nil if at is not
// valid. The caller calls Stop, or WriteTrace.
func (r *Recorder) Record(at trace.SpanContext) *Recording {
	if !at.IsValid() {
		return nil
	}
	rec := &Recording{recorder: r, at: at}
	id := at.TraceID()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.active[id] = append(r.active[id], rec)
	r.early = slices.DeleteFunc(r.early, func(s tracetest.SpanStub) bool {
		if s.SpanContext.TraceID() != id {
			return false
		}
		rec.add(s)
		return true
	})
	return rec
}

// Recording is the spans of one trace from some time on.
type Recording struct {
	recorder *Recorder
	at       trace.SpanContext // where the build is in its trace

	// What follows is guarded by the recorder's lock.
	spans   []tracetest.SpanStub
	dropped int
}

func (rec *Recording) add(s tracetest.SpanStub) {
	if len(rec.spans) >= maxSpans {
		rec.dropped++
		return
	}
	rec.spans = append(rec.spans, s)
}

// Stop ends the recording and returns its spans, and how many more there were than it keeps. Later calls return the same.
func (rec *Recording) Stop() (spans []tracetest.SpanStub, dropped int) {
	r := rec.recorder
	r.mu.Lock()
	defer r.mu.Unlock()
	id := rec.at.TraceID()
	r.active[id] = slices.DeleteFunc(r.active[id], func(o *Recording) bool { return o == rec })
	if len(r.active[id]) == 0 {
		delete(r.active, id)
	}
	return slices.Clone(rec.spans), rec.dropped
}
