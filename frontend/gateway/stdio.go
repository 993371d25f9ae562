package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// preface is what every HTTP/2 client says first.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// pipeConn is a connection over a program's standard input and output. It takes note of a program that writes anything but
// HTTP/2, which server and client would only call a broken connection.
type pipeConn struct {
	stdin  *io.PipeReader // the program's end
	stdout *io.PipeWriter // the program's end
	read   *io.PipeReader
	write  *io.PipeWriter
	closed chan struct{} // when the server gave up or was given up
	once   sync.Once

	mu    sync.Mutex
	first []byte // of what was read, no more than the preface has
}

func newPipeConn() *pipeConn {
	c := &pipeConn{closed: make(chan struct{})}
	c.stdin, c.write = io.Pipe()
	c.read, c.stdout = io.Pipe()
	return c
}

func (c *pipeConn) Read(b []byte) (int, error) {
	n, err := c.read.Read(b)
	c.note(b[:n])
	if garbage := c.garbage(); garbage != nil {
		return 0, garbage // the server would wait for as much as a preface has
	}
	return n, err
}

func (c *pipeConn) note(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if room := len(preface) - len(c.first); room > 0 {
		c.first = append(c.first, b[:min(len(b), room)]...)
	}
}

func (c *pipeConn) Write(b []byte) (int, error) { return c.write.Write(b) }

// Close ends the connection: the program reads the end of its input, and what it still writes fails.
func (c *pipeConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return errors.Join(c.write.Close(), c.read.Close())
}

// hangUp is the program's side ending: the server reads what is left.
func (c *pipeConn) hangUp() {
	_ = c.stdout.Close() // a pipe in memory
	_ = c.stdin.Close()
}

// garbage says what the program wrote if that is no HTTP/2; nil otherwise, and if it wrote nothing.
func (c *pipeConn) garbage() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if bytes.HasPrefix([]byte(preface), c.first) {
		return nil
	}
	return fmt.Errorf("wrote %q to its standard output, which is for gRPC alone", c.first)
}

// listener accepts the connection, once, and lasts as long as it does.
func (c *pipeConn) listener() net.Listener {
	l := &pipeListener{conn: c, accept: make(chan net.Conn, 1)}
	l.accept <- c
	return l
}

type pipeListener struct {
	conn   *pipeConn
	accept chan net.Conn
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accept:
		return c, nil
	case <-l.conn.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { return l.conn.Close() }
func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

// pipeAddr is the address of either side.
type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "stdio" }

func (c *pipeConn) LocalAddr() net.Addr  { return pipeAddr{} }
func (c *pipeConn) RemoteAddr() net.Addr { return pipeAddr{} }

// Deadlines are not kept: the program's end, or the build's, ends every read and write.

// SetDeadline does nothing.
func (c *pipeConn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (c *pipeConn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (c *pipeConn) SetWriteDeadline(time.Time) error { return nil }
