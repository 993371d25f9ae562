package resume

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"
)

// FuzzReceive feeds a Conn what a peer might send. It must neither panic nor hold more than it promises.
func FuzzReceive(f *testing.F) {
	frame := func(h header, data string) []byte {
		b := make([]byte, headerSize, headerSize+len(data))
		h.put(b)
		return append(b, data...)
	}
	f.Add(frame(header{kindData, 0, 5}, "hello"), false)
	f.Add(bytes.Join([][]byte{frame(header{kindData, 0, 2}, "hi"), frame(header{kindAck, 4, 0}, ""), frame(header{kindClose, 2, 0}, "")}, nil), false)
	f.Add(frame(header{kindClose, 9, 0}, ""), true)
	f.Add(frame(header{kindData, 0, maxPayload}, "short"), false)
	f.Add([]byte{9, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255}, false)
	f.Fuzz(func(t *testing.T, sent []byte, closed bool) {
		near, far := net.Pipe()
		defer far.Close()
		c := newConn(usualTiming(), near, "")
		defer near.Close()
		c.out.add([]byte("four"))
		if closed {
			_ = c.Close()
		}
		err := c.receive(bufio.NewReader(bytes.NewReader(sent)))
		if !errors.Is(err, errProtocol) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("ended with %v", err)
		}
		if c.in.len() > window || c.in.end > uint64(len(sent)) || c.credit > c.out.end {
			t.Errorf("%d bytes held, %d received, %d of %d acknowledged", c.in.len(), c.in.end, c.credit, c.out.end)
		}
		c.end(errDone)
		_ = c.Close()
	})
}

// FuzzUpgrade asks for paths with any headers. Only what is right is answered with one, and nothing is left behind.
func FuzzUpgrade(f *testing.F) {
	f.Add(Protocol, "", "", "")
	f.Add(Protocol, "token", "17", "1@b")
	f.Add("h2c", "token", "-1", "")
	f.Add(Protocol, "", "99999999999999999999", "@")
	f.Fuzz(func(t *testing.T, protocol, token, received, process string) {
		near, far := net.Pipe()
		go func() {
			_ = near.SetDeadline(time.Now().Add(time.Second))
			_, _ = near.Read(make([]byte, 1024))
			_ = near.Close()
		}()
		s := NewServer(ServerOptions{Accept: func(c net.Conn) { _ = c.Close() }, Grace: time.Millisecond})
		s.timing = timing{heartbeat: time.Second, silence: time.Second, linger: time.Millisecond}
		r := httptest.NewRequest(http.MethodPost, Path, nil)
		r.Header[http.CanonicalHeaderKey("Upgrade")] = []string{protocol}
		r.Header[headerToken], r.Header[headerReceived], r.Header[headerProcess] = []string{token}, []string{received}, []string{process}
		w := &hijackable{ResponseRecorder: httptest.NewRecorder(), conn: far}
		err := s.HandleHTTP(w, r)
		_, parseErr := strconv.ParseUint(received, 10, 64)
		good := protocol == Protocol && token == "" && (received == "" || parseErr == nil) && len(process) <= maxTold
		if good != (err == nil) {
			t.Errorf("protocol %q, token %q, received %q, process %q: %v", protocol, token, received, process, err)
		}
		if bad := (*RequestError)(nil); err != nil && !errors.As(err, &bad) {
			t.Errorf("refused with %v", err)
		}
		_ = far.Close()
		_ = s.Close()
		if len(s.conns) != 0 || len(s.per) != 0 {
			t.Errorf("%d connections of %d clients are left", len(s.conns), len(s.per))
		}
	})
}

type hijackable struct {
	*httptest.ResponseRecorder
	conn net.Conn
}

func (h *hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.conn, bufio.NewReadWriter(bufio.NewReader(h.conn), bufio.NewWriter(h.conn)), nil
}
