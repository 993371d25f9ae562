package resume

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/slipwaybuild/slipway/session/peer"
)

// window is how many bytes may be on their way in one direction, sent and not yet read by the peer's application. Each end holds as many at
// most of either direction. It is a power of two.
const window = 2 << 20

// timing is how paths are watched. It is a value so that tests can have their own.
type timing struct {
	// heartbeat is how often an end shows that it is there.
	heartbeat time.Duration
	// silence is how long a path without a byte is believed in.
	silence time.Duration
	// linger bounds the goodbye.
	linger time.Duration
}

func usualTiming() timing {
	return timing{heartbeat: 5 * time.Second, silence: 20 * time.Second, linger: 2 * time.Second}
}

// errGoodbye ends a Conn whose goodbye was not answered in time.
var errGoodbye = errors.New("closed without an answer from the peer")

// Conn is a reliable stream over successive paths, for any number of users at a time, with deadlines. It must be closed.
//
// Close sends what was written, for a short while, and tells the peer; a peer that was told sees io.EOF after the last byte.
type Conn struct {
	timing        timing
	local, remote net.Addr
	who           peer.Identity
	waits         bool // Close waits for the goodbye

	reading, writing sync.Mutex // one Read, one Write at a time
	readBy, writeBy  *deadline
	readable         chan struct{} // holds one
	writable         chan struct{} // holds one
	closing          chan struct{} // closed by Close
	ended            chan struct{} // closed when no path is needed any more

	mu         sync.Mutex // guards what follows
	path       *path      // nil while parked
	out        ring       // written, and not known to have been received
	credit     uint64     // what the peer has read: a window more may be written
	in         ring       // received and not read
	told       uint64     // what the peer was told that we have read
	closed     bool       // by Close
	peerClosed bool
	frames     bool  // any came
	over       error // what reads and writes return; nil while the stream goes on
	linger     *time.Timer
}

var (
	_ net.Conn        = (*Conn)(nil)
	_ peer.Identified = (*Conn)(nil)
)

func newConn(t timing, first net.Conn, who peer.Identity) *Conn {
	return &Conn{
		timing: t, local: first.LocalAddr(), remote: first.RemoteAddr(), who: who,
		readBy: newDeadline(), writeBy: newDeadline(),
		readable: make(chan struct{}, 1), writable: make(chan struct{}, 1),
		closing: make(chan struct{}), ended: make(chan struct{}),
	}
}

// Read waits for data, also through times without a path. At the end of the stream it returns io.EOF, and an error that says why if the
// stream was broken for good.
func (c *Conn) Read(p []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	for {
		late := c.readBy.wait()
		if isClosed(late) {
			return 0, os.ErrDeadlineExceeded
		}
		if n, err := c.take(p); n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
		select {
		case <-c.readable:
		case <-late:
		case <-c.closing:
		case <-c.ended:
		}
	}
}

// take reads what is there.
func (c *Conn) take(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	if c.in.len() == 0 {
		return 0, c.over
	}
	n := c.in.copyFrom(c.in.base, p)
	c.in.drop(c.in.base + uint64(n))
	if c.in.base-c.told >= window/4 {
		c.kick()
	}
	return n, nil
}

// Write returns when p has been taken over, which is when no more than a window is on its way.
func (c *Conn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	total := 0
	for {
		late := c.writeBy.wait()
		if isClosed(late) {
			return total, os.ErrDeadlineExceeded
		}
		n, err := c.give(p[total:])
		if total += n; err != nil || total == len(p) {
			return total, err
		}
		select {
		case <-c.writable:
		case <-late:
		case <-c.closing:
		case <-c.ended:
		}
	}
}

// give takes over as much as there is room for.
func (c *Conn) give(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return 0, net.ErrClosed
	case errors.Is(c.over, io.EOF):
		return 0, syscall.EPIPE
	case c.over != nil:
		return 0, c.over
	}
	n := min(len(p), int(c.credit+window-c.out.end))
	if n > 0 {
		c.out.add(p[:n])
		c.kick()
	}
	return n, nil
}

// Close ends the stream. The client's end waits until the daemon has heard of it, two seconds at most, since its process
// may be about to end.
func (c *Conn) Close() error {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		c.in.drop(c.in.end)
		close(c.closing)
		c.kick()
		if !isClosed(c.ended) {
			c.linger = time.AfterFunc(c.timing.linger, func() { c.end(errGoodbye) })
		}
	}
	c.mu.Unlock()
	if c.waits {
		<-c.ended
	}
	return nil
}

// end says that no path is needed any more. The first reason is what reads and writes return.
func (c *Conn) end(why error) {
	c.mu.Lock()
	if isClosed(c.ended) {
		c.mu.Unlock()
		return
	}
	if c.over == nil {
		c.over = why
	}
	if c.linger != nil {
		c.linger.Stop()
	}
	c.out = ring{base: c.out.end, end: c.out.end}
	p := c.path
	close(c.ended)
	c.mu.Unlock()
	if p != nil {
		p.hangUp()
	}
}

// received is how many bytes came.
func (c *Conn) received() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.in.end
}

// heard tells whether the peer has ever sent a frame.
func (c *Conn) heard() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.frames
}

// kick wakes the path's sender. It is called under mu.
func (c *Conn) kick() {
	if c.path != nil {
		poke(c.path.wake)
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// LocalAddr is that of the first path.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is that of the first path.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// PeerIdentity is that of the first path, and of all others.
func (c *Conn) PeerIdentity() peer.Identity { return c.who }

// SetDeadline is SetReadDeadline and SetWriteDeadline.
func (c *Conn) SetDeadline(t time.Time) error {
	c.readBy.set(t)
	c.writeBy.set(t)
	return nil
}

// SetReadDeadline bounds Read, also one that waits.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.readBy.set(t)
	return nil
}

// SetWriteDeadline bounds Write, also one that waits. What was taken over before is sent all the same.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.writeBy.set(t)
	return nil
}
