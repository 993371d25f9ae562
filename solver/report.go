package solver

import (
	"context"
	"sync"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// reports are the steps of one build as its viewers see them. Vertices of equal id are one step.
type reports struct {
	sink progress.Sink

	mu   sync.Mutex // guards what follows
	byID map[digest.Digest]*report
}

func newReports(sink progress.Sink) *reports {
	return &reports{sink: sink, byID: map[digest.Digest]*report{}}
}

// of returns the report of v's step. Steps that are hidden, or have no id to be known by, report nothing.
func (rs *reports) of(v *Vertex) *report {
	if v.Hidden || v.ID == "" {
		return &report{sink: progress.Discard}
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if r := rs.byID[v.ID]; r != nil {
		return r
	}
	r := &report{sink: rs.sink, vertex: progress.Vertex{ID: v.ID, Name: v.Name, Group: v.Group}}
	for _, in := range v.Inputs {
		if !in.Vertex.Hidden {
			r.vertex.Inputs = append(r.vertex.Inputs, in.Vertex.ID)
		}
	}
	rs.byID[v.ID] = r
	return r
}

// end completes steps that began to pin or to be read and were not needed further.
func (rs *reports) end() {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, r := range rs.byID {
		r.completed(nil)
	}
}

// report is the state of one step of one build. It is a [progress.Sink] for what the step's work writes, which it puts under
// the step's own id; a step that writes has started.
type report struct {
	sink progress.Sink

	mu     sync.Mutex // guards what follows, and the order of events in the sink
	vertex progress.Vertex
	asked  int // askers of the result now
}

// ask notes that somebody asks for the step's result now, until the returned function is called.
func (r *report) ask() func() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.asked--
	}
}

// started notes that the step works, or waits for somebody else's same work.
func (r *report) started() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.working() {
		return
	}
	now := time.Now()
	r.vertex.Started, r.vertex.Completed, r.vertex.Cached, r.vertex.Error = &now, nil, false, ""
	r.emit()
}

// completed notes that a step that had started is over.
func (r *report) completed(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.working() {
		return
	}
	now := time.Now()
	r.vertex.Completed = &now
	if err != nil {
		r.vertex.Error = err.Error()
	}
	r.emit()
}

// failed notes that the step is over and why, whether or not it was seen to start. Saying it again changes nothing.
func (r *report) failed(err error) {
	r.mu.Lock()
	said := r.vertex.Completed != nil && r.vertex.Error == err.Error()
	r.mu.Unlock()
	if said {
		return
	}
	r.started()
	r.completed(err)
}

// canceled notes that nobody wants the step any more. Viewers know it by this very text.
func (r *report) canceled() { r.completed(context.Canceled) }

// cached notes that the step's result was found. A step that was over before keeps what was said of it.
func (r *report) cached() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cachedLocked()
}

// pruned notes that the step was not needed, for its consumers were found. Whoever asks for it all the same will speak for it.
func (r *report) pruned() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked == 0 {
		r.cachedLocked()
	}
}

func (r *report) cachedLocked() {
	if r.vertex.Completed != nil {
		return
	}
	now := time.Now()
	if r.vertex.Started == nil {
		r.vertex.Started = &now
	}
	r.vertex.Completed, r.vertex.Cached = &now, true
	r.emit()
}

func (r *report) working() bool { return r.vertex.Started != nil && r.vertex.Completed == nil }

// emit writes the vertex whole. The caller holds the lock.
func (r *report) emit() {
	v := r.vertex
	r.sink.Append(progress.Event{Vertex: &v})
}

// Append writes ev under the step's id.
func (r *report) Append(ev progress.Event) {
	r.mu.Lock()
	begun := r.vertex.Started != nil
	r.mu.Unlock()
	if !begun {
		r.started()
	}
	switch id := r.vertex.ID; {
	case ev.Log != nil:
		l := *ev.Log
		l.Vertex, ev.Log = id, &l
	case ev.Status != nil:
		s := *ev.Status
		s.Vertex, ev.Status = id, &s
	case ev.Warning != nil:
		w := *ev.Warning
		w.Vertex, ev.Warning = id, &w
	}
	r.sink.Append(ev)
}

// trace writes that a key was looked up; reason is that of a miss.
func (r *report) trace(kind, key string, hit bool, reason string, parts Parts) {
	r.sink.Append(progress.Event{Trace: &progress.Trace{
		Vertex: r.vertex.ID, Kind: kind, Key: key, Hit: hit, Reason: reason, Parts: parts, Time: time.Now(),
	}})
}
