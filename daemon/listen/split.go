package listen

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"
)

// preface is how an HTTP/2 connection with prior knowledge begins (RFC 9113, 3.4); no HTTP/1.1 request does.
const preface = "PRI * HTTP/2.0"

// firstBytes is how long a peer may take to say what it speaks.
const firstBytes = 30 * time.Second

// Split hands the connections of one listener to two: those that begin with the HTTP/2 preface, and all others.
type Split struct {
	HTTP1 *Queue
	HTTP2 *Queue

	log *slog.Logger
	wg  sync.WaitGroup
}

// NewSplit returns a fork; connections pass it while Serve runs.
func NewSplit(log *slog.Logger) *Split {
	return &Split{HTTP1: NewQueue(), HTTP2: NewQueue(), log: log}
}

// Serve accepts from l until it is closed or ctx ends. Several listeners may be served at once.
func (s *Split) Serve(ctx context.Context, l net.Listener) error {
	defer s.wg.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				continue
			}
			return err
		}
		s.wg.Go(func() { s.pass(ctx, conn) })
	}
}

// Take handles a connection as if it had just been accepted: one that stands on others. It returns at once; ctx bounds how long the connection
// may take to say what it speaks. Serve need not run.
func (s *Split) Take(ctx context.Context, conn net.Conn) {
	go s.pass(ctx, conn)
}

func (s *Split) pass(ctx context.Context, conn net.Conn) {
	// A daemon that stops must not wait for a peer that says nothing.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now()) })
	peeked := &peekedConn{Conn: conn, r: bufio.NewReaderSize(conn, 4096)}
	_ = conn.SetReadDeadline(time.Now().Add(firstBytes))
	// One byte is enough to rule HTTP/2 out in nearly all cases; only a 'P' is worth waiting for more.
	first, err := peeked.r.Peek(1)
	if err == nil && first[0] == preface[0] {
		first, err = peekWhile(peeked.r)
	}
	if !stop() || err != nil && len(first) == 0 {
		// A peer that goes before it said a word is a probe.
		_ = conn.Close()
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	q := s.HTTP1
	if string(first) == preface {
		q = s.HTTP2
	}
	if err := q.Put(ctx, peeked); err != nil {
		s.log.Debug("connection not served", "error", err)
		_ = conn.Close()
	}
}

// peekWhile reads ahead as long as what came is a beginning of the preface.
func peekWhile(r *bufio.Reader) ([]byte, error) {
	for n := 2; ; n++ {
		b, err := r.Peek(n)
		if err != nil || len(b) == len(preface) || string(b) != preface[:len(b)] {
			return b, err
		}
	}
}

type peekedConn struct {
	net.Conn
	r *bufio.Reader
}

// NetConn is the connection itself.
func (c *peekedConn) NetConn() net.Conn { return c.Conn }

func (c *peekedConn) Read(p []byte) (int, error) { return c.r.Read(p) }
