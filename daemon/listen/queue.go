package listen

import (
	"context"
	"net"
	"sync"
)

// Queue is a listener whose connections are put in by hand: from a fork, or from an upgraded HTTP request.
type Queue struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

// NewQueue returns an open queue.
func NewQueue() *Queue {
	return &Queue{conns: make(chan net.Conn), done: make(chan struct{})}
}

// Put hands a connection to whoever accepts next. The connection stays the caller's if it returns an error.
func (q *Queue) Put(ctx context.Context, c net.Conn) error {
	select {
	case q.conns <- c:
		return nil
	case <-q.done:
		return net.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Accept waits for a connection.
func (q *Queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and Put. It may be called more than once.
func (q *Queue) Close() error {
	q.once.Do(func() { close(q.done) })
	return nil
}

// Addr names the queue in logs.
func (q *Queue) Addr() net.Addr { return queueAddr{} }

type queueAddr struct{}

func (queueAddr) Network() string { return "queue" }
func (queueAddr) String() string  { return "queue" }
