// Package streamconn makes a net.Conn of a gRPC stream of messages that carry bytes.
//
// Between the connection and the stream stand two pipes, so that closing it ends a pending Read or Write at once and deadlines
// work, neither of which a gRPC stream offers.
package streamconn

import (
	"errors"
	"io"
	"net"
	"sync"
)

// chunk is how many bytes are put into one message, at most. It is what gRPC's transport writes at a time.
const chunk = 256 << 10

// Stream is either end of a stream of messages.
type Stream[M any] interface {
	Send(*M) error
	Recv() (*M, error)
}

// Codec says how bytes are put into a message.
type Codec[M any] struct {
	Wrap   func([]byte) *M
	Unwrap func(*M) []byte
}

// Conn is the connection. It must be closed by whoever got it.
type Conn struct {
	in, out net.Conn // our ends of the pipes

	closeOnce sync.Once
	closed    chan struct{}
	sent      chan struct{} // closed when nothing more will be sent

	mu      sync.Mutex
	recvErr error // what receiving ended with, if not io.EOF
}

var _ net.Conn = (*Conn)(nil)

// New returns a connection over s. closeSend is called once, when all that was written has been sent and nothing more will be; release is
// called once after Close and must see to it that the stream ends. Either may be nil: the server's end of a stream ends when
// its handler returns.
func New[M any](s Stream[M], codec Codec[M], closeSend, release func()) *Conn {
	in, fromPeer := net.Pipe()
	out, toPeer := net.Pipe()
	c := &Conn{in: in, out: out, closed: make(chan struct{}), sent: make(chan struct{})}
	go func() {
		send(s, codec, toPeer)
		close(c.sent)
		if closeSend != nil {
			closeSend()
		}
		<-c.closed
		if release != nil {
			release()
		}
	}()
	go func() {
		err := receive(s, codec, fromPeer)
		c.mu.Lock()
		c.recvErr = err
		c.mu.Unlock()
		_ = fromPeer.Close() // the reader sees the end now
	}()
	return c
}

func send[M any](s Stream[M], codec Codec[M], from net.Conn) {
	buf := make([]byte, chunk)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if s.Send(codec.Wrap(buf[:n])) != nil {
				break // why is what receiving ends with
			}
		}
		if err != nil {
			break
		}
	}
	_ = from.Close() // writers fail from now on
}

func receive[M any](s Stream[M], codec Codec[M], to net.Conn) error {
	for {
		m, err := s.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if b := codec.Unwrap(m); len(b) > 0 { // a pipe would hand an empty write to the reader
			if _, err := to.Write(b); err != nil {
				return nil // closed on this side
			}
		}
	}
}

// Read returns io.EOF when the peer has closed its direction, and the stream's error when that broke.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	if errors.Is(err, io.EOF) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.recvErr != nil {
			err = c.recvErr
		}
	}
	return n, err
}

func (c *Conn) Write(p []byte) (int, error) { return c.out.Write(p) }

// CloseWrite ends our direction; the peer's may go on.
func (c *Conn) CloseWrite() error { return c.out.Close() }

// Drain ends our direction and waits until all that was written has been sent, or the stream has broken. A server's handler calls it
// before it returns, because what was not sent by then is lost.
func (c *Conn) Drain() {
	_ = c.CloseWrite() // closing a pipe does not fail
	<-c.sent
}

// Close ends both directions. What was written before may still be on its way.
func (c *Conn) Close() error {
	c.closeOnce.Do(func() {
		_ = c.out.Close() // closing a pipe does not fail
		_ = c.in.Close()
		close(c.closed)
	})
	return nil
}
