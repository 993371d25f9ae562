package session

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// watchedConn knows when something was last heard from the peer and when the connection broke. gRPC's transport always has a
// read pending, so a peer that goes away is noticed at once and without asking it.
type watchedConn struct {
	net.Conn
	heard  atomic.Int64 // Unix nanoseconds of the last byte
	broken chan struct{}
	once   sync.Once
	cause  error // why it broke; read after broken is closed
}

func watchConn(c net.Conn) *watchedConn {
	w := &watchedConn{Conn: c, broken: make(chan struct{})}
	w.heard.Store(time.Now().UnixNano())
	return w
}

func (w *watchedConn) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if n > 0 {
		w.heard.Store(time.Now().UnixNano())
	}
	if err != nil {
		w.breakOff(err)
	}
	return n, err
}

func (w *watchedConn) Write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	if err != nil {
		w.breakOff(err)
	}
	return n, err
}

func (w *watchedConn) Close() error {
	w.breakOff(net.ErrClosed)
	return w.Conn.Close()
}

func (w *watchedConn) breakOff(err error) {
	w.once.Do(func() {
		w.cause = err
		close(w.broken)
	})
}

// silence is how long nothing was heard.
func (w *watchedConn) silence() time.Duration {
	return time.Since(time.Unix(0, w.heard.Load()))
}
