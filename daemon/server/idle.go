package server

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// waitIdle returns true when busy was false for the whole of limit, and false when ctx ended first. A limit of 0 is never
// reached.
func waitIdle(ctx context.Context, limit time.Duration, busy func() bool) bool {
	if limit <= 0 {
		<-ctx.Done()
		return false
	}
	step := max(limit/20, time.Millisecond)
	tick := time.NewTicker(step)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return false
		case now := <-tick.C:
			if busy() {
				last = now
			} else if now.Sub(last) >= limit {
				return true
			}
		}
	}
}

type counter struct{ n atomic.Int64 }

func (c *counter) value() int64 { return c.n.Load() }

// countingListener counts the connections that are open.
type countingListener struct {
	net.Listener
	counter *counter
}

func (l *countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.counter.n.Add(1)
	return &countedConn{Conn: conn, counter: l.counter}, nil
}

type countedConn struct {
	net.Conn
	counter *counter
	once    sync.Once
}

// NetConn is the connection itself.
func (c *countedConn) NetConn() net.Conn { return c.Conn }

func (c *countedConn) Close() error {
	c.once.Do(func() { c.counter.n.Add(-1) })
	return c.Conn.Close()
}
