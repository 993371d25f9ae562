package samehost

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
)

// Stream is a file of a client that is written with the client's identity. It belongs to one goroutine.
type Stream struct {
	ctx      context.Context // of the client's call, for its cause
	cancel   context.CancelFunc
	conn     net.Conn
	file     *os.File // nil if the client has the export already
	threads  *threads // nil without file
	answered <-chan error
	buf      []byte
	err      error
	over     bool
}

// streamBuffer is how much is written at a time.
const streamBuffer = 1 << 20

// Write gathers small pieces.
func (s *Stream) Write(p []byte) (int, error) {
	if s.over {
		return 0, os.ErrClosed
	}
	if s.file == nil {
		return len(p), nil
	}
	if s.buf == nil {
		s.buf = make([]byte, 0, streamBuffer)
	}
	total := len(p)
	for len(p) > 0 && s.err == nil {
		n := copy(s.buf[len(s.buf):cap(s.buf)], p)
		s.buf, p = s.buf[:len(s.buf)+n], p[n:]
		if len(s.buf) == cap(s.buf) {
			s.flush()
		}
	}
	return total - len(p), s.err
}

func (s *Stream) flush() {
	if len(s.buf) == 0 || s.err != nil {
		return
	}
	// As the client, since its quota counts.
	derr := s.threads.do(s.ctx, func() { _, s.err = s.file.Write(s.buf) })
	s.buf = s.buf[:0]
	if err := errors.Join(derr, s.err); err != nil {
		s.err = fmt.Errorf("write export: %w", err)
	}
}

// Close ends the file and waits until the client has published it; its error is the export's. After Abort it does nothing.
func (s *Stream) Close() error {
	if s.over {
		return s.err
	}
	s.flush()
	if s.err == nil && s.file != nil {
		_, s.err = s.conn.Write([]byte{answerWhole})
	}
	if s.err != nil {
		s.Abort()
		return s.err
	}
	select {
	case s.err = <-s.answered:
	case <-s.ctx.Done():
		s.err = context.Cause(s.ctx)
	}
	s.end()
	return s.err
}

// Abort gives up: the client discards what it has. After Close it does nothing.
func (s *Stream) Abort() {
	if s.over {
		return
	}
	if s.err == nil {
		s.err = errors.New("export was given up")
	}
	_ = s.conn.Close() // which tells the client
	select {
	case <-s.answered: //nolint:errcheck // that the client agrees changes nothing
	case <-s.ctx.Done():
	}
	s.end()
}

func (s *Stream) end() {
	s.over, s.buf = true, nil
	s.cancel()
	_ = s.conn.Close() // all was said
	if s.file != nil {
		s.threads.close()
		if err := s.file.Close(); s.err == nil {
			s.err = err
		}
	}
}
