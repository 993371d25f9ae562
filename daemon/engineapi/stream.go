package engineapi

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"sync"
)

// message is one object of a stream. Exactly those fields that are set are sent.
type message struct {
	Stream   string          `json:"stream,omitempty"`
	Status   string          `json:"status,omitempty"`
	Detail   *progressDetail `json:"progressDetail,omitempty"`
	Progress string          `json:"progress,omitempty"`
	ID       string          `json:"id,omitempty"`
	Failure  *errorDetail    `json:"errorDetail,omitempty"`
	Error    string          `json:"error,omitempty"`
	Aux      any             `json:"aux,omitempty"`
}

// progressDetail counts bytes; an empty one clears a progress bar.
type progressDetail struct {
	Current int64 `json:"current,omitempty"`
	Total   int64 `json:"total,omitempty"`
}

type errorDetail struct {
	Code    int    `json:"code,omitempty"`
	Message string `json:"message"`
}

// stream is an answer of many messages, each a JSON object on a line of its own that ends with CR LF and is sent at once. Safe for
// concurrent use.
//
// A client that is still sending its request does not read the answer, so what is written before the request's body was read to
// its end is held back until then.
type stream struct {
	w    http.ResponseWriter
	ctrl *http.ResponseController

	mu      sync.Mutex
	held    *bytes.Buffer // nil once the request was read
	started bool          // something was sent
	err     error         // of the connection; nothing is written after it
}

// newStream begins an answer. It watches r.Body, which must be read through r from now on.
func newStream(w http.ResponseWriter, r *http.Request) *stream {
	s := &stream{w: w, ctrl: http.NewResponseController(w)}
	if r.Body != nil && r.Body != http.NoBody {
		s.held = &bytes.Buffer{}
		r.Body = &watchedBody{ReadCloser: r.Body, ended: s.release}
	}
	return s
}

// Send writes one message.
func (s *stream) Send(m message) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b = append(b, '\r', '\n')
	if s.held != nil {
		_, err = s.held.Write(b)
		return err
	}
	return s.send(b)
}

// send is called with the lock.
func (s *stream) send(b []byte) error {
	if s.err != nil || len(b) == 0 {
		return s.err
	}
	if !s.started {
		s.started = true
		s.w.Header().Set("Content-Type", "application/json")
		s.w.WriteHeader(http.StatusOK)
	}
	if _, s.err = s.w.Write(b); s.err == nil {
		s.err = s.ctrl.Flush()
	}
	return s.err
}

// release sends what was held back.
func (s *stream) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if held := s.held; held != nil {
		s.held = nil
		_ = s.send(held.Bytes())
	}
}

// End finishes the answer. An error becomes its last message if the client has seen any; otherwise it is returned, to be the
// answer, and what was held back is dropped.
func (s *stream) End(failure error) error { return s.EndWith(failure, 0) }

// EndWith is End with the code that docker's clients exit with.
func (s *stream) EndWith(failure error, code int) error {
	s.mu.Lock()
	started := s.started
	s.mu.Unlock()
	switch {
	case failure == nil:
		s.release()
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.started && s.err == nil {
			// An answer without messages is an answer.
			s.started = true
			s.w.Header().Set("Content-Type", "application/json")
			s.w.WriteHeader(http.StatusOK)
		}
		return nil
	case !started:
		return failure
	}
	_ = s.Send(message{Failure: &errorDetail{Code: code, Message: failure.Error()}, Error: failure.Error()})
	s.release()
	return nil
}

// watchedBody tells when a request was read to its end, or will not be read further.
type watchedBody struct {
	io.ReadCloser
	ended func()
	once  sync.Once
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.once.Do(b.ended)
	}
	return n, err
}

func (b *watchedBody) Close() error {
	err := b.ReadCloser.Close()
	b.once.Do(b.ended)
	return err
}
