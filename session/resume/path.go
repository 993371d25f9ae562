package resume

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// errDone ends a path that has done its work.
var errDone = errors.New("the stream has ended")

// path is one connection below a Conn.
type path struct {
	conn net.Conn
	wake chan struct{} // holds one: there may be something to send
	done chan struct{} // closed by hangUp
	once sync.Once

	// What follows is guarded by the Conn's mu.
	sent      uint64 // what was written to this path
	ackDue    bool
	closeSent bool
}

// hangUp ends the path; who serves it notices.
func (p *path) hangUp() {
	p.once.Do(func() {
		close(p.done)
		_ = p.conn.Close() // whatever it says, it is over
	})
}

// serve runs a path until it breaks or the stream ends, and closes it. r reads from nc; the peer has received as much as it says. Nobody else
// may be serving the Conn.
func (c *Conn) serve(nc net.Conn, r *bufio.Reader, peerReceived uint64) error {
	p := &path{conn: nc, wake: make(chan struct{}, 1), done: make(chan struct{}), sent: peerReceived, ackDue: true}
	defer p.hangUp()
	if err := c.begin(p); err != nil {
		return err
	}
	defer c.park(p)
	got := make(chan error, 1)
	go func() {
		got <- c.receive(r)
		p.hangUp()
	}()
	sendErr := c.send(p)
	p.hangUp()
	// What was received says more about the end than what could not be sent.
	if err := <-got; !errors.Is(err, net.ErrClosed) {
		return err
	}
	return sendErr
}

// begin makes p the path.
func (c *Conn) begin(p *path) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if isClosed(c.ended) {
		return errDone
	}
	if p.sent < c.out.base || p.sent > c.out.end {
		return fmt.Errorf("%w: it says that it has %d bytes, of those from %d to %d", errProtocol, p.sent, c.out.base, c.out.end)
	}
	c.out.drop(p.sent)
	c.path = p
	return nil
}

// park leaves the Conn without a path, and ends it if it needs none.
func (c *Conn) park(p *path) {
	c.mu.Lock()
	c.path = nil
	finished := c.peerClosed
	c.mu.Unlock()
	if finished {
		c.end(io.EOF)
	}
}

// send writes frames until the path breaks or the goodbye is over.
func (c *Conn) send(p *path) error {
	tick := time.NewTicker(c.timing.heartbeat)
	defer tick.Stop()
	buf := make([]byte, 2*headerSize+maxPayload)
	for {
		n, last := c.next(p, buf)
		if n > 0 {
			if _, err := p.conn.Write(buf[:n]); err != nil {
				return err
			}
		}
		if last {
			return errDone
		}
		if n > 0 {
			continue
		}
		select {
		case <-p.wake:
		case <-tick.C:
			c.idle(p)
		case <-p.done:
			return net.ErrClosed
		}
	}
}

// next puts what is to be sent into buf. last says that nothing will follow.
func (c *Conn) next(p *path, buf []byte) (n int, last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.closeSent {
		return 0, c.peerClosed
	}
	if p.ackDue || c.in.base-c.told >= window/4 {
		p.ackDue, c.told = false, c.in.base
		header{kind: kindAck, offset: c.told}.put(buf)
		n = headerSize
	}
	if size := c.out.copyFrom(p.sent, buf[n+headerSize:][:maxPayload]); size > 0 && !c.peerClosed {
		header{kind: kindData, offset: p.sent, length: size}.put(buf[n:])
		p.sent += uint64(size)
		return n + headerSize + size, false
	}
	if c.closed || c.peerClosed {
		p.closeSent = true
		header{kind: kindClose, offset: p.sent}.put(buf[n:])
		n += headerSize
	}
	return n, p.closeSent && c.peerClosed
}

// idle makes the next frame a sign of life, and gives back memory.
func (c *Conn) idle(p *path) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.ackDue = true
	c.in.shrink()
	c.out.shrink()
}

// receive reads frames until the path breaks or the peer ends the stream.
func (c *Conn) receive(r *bufio.Reader) error {
	buf := make([]byte, maxPayload)
	for {
		h, err := readHeader(r)
		if err != nil {
			return err
		}
		if h.kind == kindData {
			if _, err := io.ReadFull(r, buf[:h.length]); err != nil {
				return err
			}
		}
		if err := c.accept(h, buf[:h.length]); err != nil {
			return err
		}
	}
}

// accept does what a frame says.
func (c *Conn) accept(h header, data []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frames = true
	switch h.kind {
	case kindData:
		switch {
		case c.peerClosed, h.offset != c.in.end:
			return fmt.Errorf("%w: data at %d, expected at %d", errProtocol, h.offset, c.in.end)
		case c.in.len()+len(data) > window:
			return fmt.Errorf("%w: more than the window of %d bytes", errProtocol, window)
		}
		c.in.add(data)
		if c.closed { // nobody will read it
			c.in.drop(c.in.end)
		}
		poke(c.readable)
	case kindAck:
		if h.offset > c.out.end {
			return fmt.Errorf("%w: it has read %d bytes of %d", errProtocol, h.offset, c.out.end)
		}
		c.credit = max(c.credit, h.offset)
		c.out.drop(h.offset)
		poke(c.writable)
	case kindClose:
		if !c.closed && h.offset != c.in.end {
			return fmt.Errorf("%w: it ends at %d, and came as far as %d", errProtocol, h.offset, c.in.end)
		}
		c.peerClosed = true
		if c.over == nil {
			c.over = io.EOF
		}
		poke(c.readable)
		poke(c.writable)
		c.kick()
	}
	return nil
}

// newReader returns what serve reads a path with.
func newReader(conn net.Conn, t timing) *bufio.Reader {
	return bufio.NewReaderSize(&patientReader{conn: conn, silence: t.silence}, 32<<10)
}

// patientReader fails when nothing came for a while; a trickle is enough.
type patientReader struct {
	conn    net.Conn
	silence time.Duration
	set     time.Time // when the deadline was
}

func (r *patientReader) Read(p []byte) (int, error) {
	if now := time.Now(); now.Sub(r.set) > r.silence/8 {
		if err := r.conn.SetReadDeadline(now.Add(r.silence)); err != nil {
			return 0, err
		}
		r.set = now
	}
	return r.conn.Read(p)
}
