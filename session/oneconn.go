package session

import (
	"net"
	"sync"
)

// oneConn is a listener that accepts one connection, which is there already, and is closed when that connection is. So
// grpc.Server, with its own HTTP/2 transport, serves a connection that this side dialled.
type oneConn struct {
	conn   net.Conn
	accept chan net.Conn // holds the connection until it is accepted
	done   chan struct{}
	once   sync.Once
}

func newOneConn(conn net.Conn) *oneConn {
	l := &oneConn{conn: conn, accept: make(chan net.Conn, 1), done: make(chan struct{})}
	l.accept <- &notifyingConn{Conn: conn, closed: l.hangUp}
	return l
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-l.accept:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close closes the connection too: without it there is nothing to accept.
func (l *oneConn) Close() error {
	l.hangUp()
	return nil
}

func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }

// hangUp closes the connection, and the listener with it.
func (l *oneConn) hangUp() {
	l.once.Do(func() {
		_ = l.conn.Close() // it is over, whatever Close says
		close(l.done)
	})
}

// notifyingConn calls closed instead of closing.
type notifyingConn struct {
	net.Conn
	closed func()
}

func (c *notifyingConn) Close() error {
	c.closed()
	return nil
}
