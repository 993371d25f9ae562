package exporter

import (
	"errors"
	"io"
	"sync"
)

// ErrStreamBegun says that an output cannot be written once more: its client has had a part of the stream.
var ErrStreamBegun = errors.New("the stream to the client was begun before, and cannot be begun again")

// Streams remembers which outputs have sent something to their clients in one stream: where that goes to the client's standard output, a
// second one would follow the first. Its zero value is ready; it is safe for concurrent use. A nil one remembers nothing.
type Streams struct {
	mu    sync.Mutex
	begun map[int]bool
}

// Begun tells whether the output with this id has sent something.
func (s *Streams) Begun(id int) bool {
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begun[id]
}

// Any tells whether an output for which unless is false has sent something.
func (s *Streams) Any(unless func(id int) bool) bool {
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.begun {
		if !unless(id) {
			return true
		}
	}
	return false
}

// begin notes that an output sends something; false if it has before.
func (s *Streams) begin(id int) bool {
	if s == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun[id] {
		return false
	}
	if s.begun == nil {
		s.begun = map[int]bool{}
	}
	s.begun[id] = true
	return true
}

// onceWriter lets the first stream of an output through.
type onceWriter struct {
	w       io.Writer
	streams *Streams
	id      int
	own     bool
}

func (o *onceWriter) Write(p []byte) (int, error) {
	if !o.own {
		if o.own = o.streams.begin(o.id); !o.own {
			return 0, ErrStreamBegun
		}
	}
	return o.w.Write(p)
}
