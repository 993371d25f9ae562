// Package prefixconn gives back to a connection the bytes that were read of it too early.
package prefixconn

import (
	"bufio"
	"io"
	"net"
)

// Conn is a connection whose first bytes are in memory.
type Conn struct {
	net.Conn
	first []byte // not given out yet; Read is not called concurrently
}

// Unbuffer returns conn with what r has buffered of it put in front; conn itself if that is nothing. r must not be used any more.
func Unbuffer(conn net.Conn, r *bufio.Reader) (net.Conn, error) {
	n := r.Buffered()
	if n == 0 {
		return conn, nil
	}
	first := make([]byte, n)
	if _, err := io.ReadFull(r, first); err != nil {
		return nil, err
	}
	return &Conn{Conn: conn, first: first}, nil
}

// NetConn is the connection itself.
func (c *Conn) NetConn() net.Conn { return c.Conn }

func (c *Conn) Read(p []byte) (int, error) {
	if len(c.first) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.first)
	c.first = c.first[n:]
	return n, nil
}
