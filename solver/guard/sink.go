package guard

import (
	"bytes"
	"sync"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// Sink masks a build's story before it is written. Output is held back where a value may have begun, never past the end of its step.
// It is safe for concurrent use. Whoever made it calls Flush when the story ends.
type Sink struct {
	next   progress.Sink
	values *Values

	mu      sync.Mutex
	streams map[stream]*output
}

type stream struct {
	step digest.Digest
	fd   int
}

// output is what one step writes to one stream.
type output struct {
	*Masker
	last progress.Log // for what is let go: whose it is
}

var _ progress.Sink = (*Sink)(nil)

// NewSink returns a Sink in front of next.
func NewSink(next progress.Sink, values *Values) *Sink {
	return &Sink{next: next, values: values, streams: map[stream]*output{}}
}

// Append masks an event and passes it on.
func (s *Sink) Append(ev progress.Event) {
	if ev.Log != nil {
		s.log(ev.Log)
		return
	}
	if v := ev.Vertex; v != nil && v.Completed != nil {
		s.flush(v.ID)
	}
	if m := s.values.Matcher(); m != nil {
		ev = m.maskEvent(ev)
	}
	s.next.Append(ev)
}

func (s *Sink) log(l *progress.Log) {
	key := stream{l.Vertex, l.Stream}
	s.mu.Lock()
	o := s.streams[key]
	if o == nil && s.values.Matcher() == nil {
		s.mu.Unlock()
		s.next.Append(progress.Event{Log: l})
		return
	}
	if o == nil {
		o = &output{}
		o.Masker = NewMasker(s.values.Matcher, func(b []byte) {
			told := o.last
			told.Data = bytes.Clone(b)
			s.next.Append(progress.Event{Log: &told})
		})
		s.streams[key] = o
	}
	s.mu.Unlock()
	o.put(l)
}

// put writes and remembers when that was.
func (o *output) put(l *progress.Log) {
	o.Masker.mu.Lock()
	o.last = progress.Log{Vertex: l.Vertex, Stream: l.Stream, Timestamp: l.Timestamp}
	o.Masker.mu.Unlock()
	_, _ = o.Write(l.Data)
}

// flush lets go what is held back of a step.
func (s *Sink) flush(step digest.Digest) {
	s.mu.Lock()
	var list []*output
	for key, o := range s.streams {
		if key.step == step {
			list = append(list, o)
			delete(s.streams, key)
		}
	}
	s.mu.Unlock()
	for _, o := range list {
		o.Flush()
	}
}

// Flush lets go all that is held back.
func (s *Sink) Flush() {
	s.mu.Lock()
	list := s.streams
	s.streams = map[stream]*output{}
	s.mu.Unlock()
	for _, o := range list {
		o.Flush()
	}
}

// maskEvent returns a copy of what changes. Ids and digests are nobody's words.
func (m *Matcher) maskEvent(ev progress.Event) progress.Event {
	switch {
	case ev.Vertex != nil:
		v := *ev.Vertex
		v.Name, v.Error = m.MaskString(v.Name), m.MaskString(v.Error)
		if v.Group != nil {
			g := *v.Group
			g.Name = m.MaskString(g.Name)
			v.Group = &g
		}
		ev.Vertex = &v
	case ev.Status != nil:
		s := *ev.Status
		s.ID, s.Name = m.MaskString(s.ID), m.MaskString(s.Name)
		ev.Status = &s
	case ev.Warning != nil:
		w := *ev.Warning
		w.Short, w.URL = m.Mask(w.Short), m.MaskString(w.URL)
		w.Detail = nil
		for _, d := range ev.Warning.Detail {
			w.Detail = append(w.Detail, m.Mask(d))
		}
		if w.SourceInfo != nil {
			i := *w.SourceInfo
			i.Data = m.Mask(i.Data)
			w.SourceInfo = &i
		}
		ev.Warning = &w
	case ev.Trace != nil:
		t := *ev.Trace
		t.Reason, t.Parts = m.MaskString(t.Reason), nil
		for _, p := range ev.Trace.Parts {
			t.Parts = append(t.Parts, progress.Part{Name: m.MaskString(p.Name), Value: m.MaskString(p.Value)})
		}
		ev.Trace = &t
	}
	return ev
}

// MaskWriter returns a writer that masks what is logged and passes everything else on masked, and the function that lets go what is held
// back, which whoever made it calls in the end.
func MaskWriter(w progress.Writer, values *Values) (progress.Writer, func()) {
	sink := NewSink(writerSink{w}, values)
	return progress.NewWriter(sink, ""), sink.Flush
}

type writerSink struct{ w progress.Writer }

func (s writerSink) Append(ev progress.Event) {
	switch {
	case ev.Log != nil:
		s.w.Log(ev.Log.Stream, ev.Log.Data)
	case ev.Status != nil:
		s.w.Status(*ev.Status)
	case ev.Warning != nil:
		s.w.Warn(*ev.Warning)
	}
}
