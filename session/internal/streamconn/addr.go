package streamconn

import (
	"net"
	"time"
)

// LocalAddr names no place: the stream's connection has an address, the stream has none.
func (c *Conn) LocalAddr() net.Addr { return addr{} }

// RemoteAddr is as LocalAddr.
func (c *Conn) RemoteAddr() net.Addr { return addr{} }

// SetDeadline bounds pending and later Reads and Writes.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.in.SetReadDeadline(t); err != nil {
		return err
	}
	return c.out.SetWriteDeadline(t)
}

// SetReadDeadline bounds pending and later Reads.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.in.SetReadDeadline(t) }

// SetWriteDeadline bounds pending and later Writes.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.out.SetWriteDeadline(t) }

type addr struct{}

func (addr) Network() string { return "stream" }
func (addr) String() string  { return "stream" }
