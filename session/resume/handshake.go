package resume

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/slipwaybuild/slipway/session/internal/prefixconn"
)

const (
	// Path is where a path is asked for.
	Path = "/slipway/v1/resume"
	// Protocol is what a path speaks after its handshake.
	Protocol = "slipway-resume-1"
)

const (
	headerToken    = "Slipway-Resume-Token"    // names a Conn
	headerReceived = "Slipway-Resume-Received" // bytes that came so far
	headerGrace    = "Slipway-Resume-Grace"    // how long a Conn may be parked, in seconds
	headerProcess  = "Slipway-Resume-Process"  // who says so; see peer.Self
)

// Limits of a handshake.
const (
	maxHead       = 16 << 10
	maxTold       = 256
	handshakeTime = 15 * time.Second
)

// hello is one side of a handshake.
type hello struct {
	token    string
	received uint64
	grace    time.Duration
	process  string
}

func newToken() string { return rand.Text() }

func (h hello) put(to http.Header) {
	if h.token != "" {
		to.Set(headerToken, h.token)
		to.Set(headerReceived, strconv.FormatUint(h.received, 10))
	}
	if h.grace > 0 {
		to.Set(headerGrace, strconv.FormatInt(int64(h.grace/time.Second), 10))
	}
	if h.process != "" {
		to.Set(headerProcess, h.process)
	}
}

// readHello reads what the other side says. What is not there is zero.
func readHello(from http.Header) (h hello, err error) {
	h.token, h.process = from.Get(headerToken), from.Get(headerProcess)
	if len(h.token) > maxTold || len(h.process) > maxTold {
		return hello{}, fmt.Errorf("%s and %s take %d bytes at most", headerToken, headerProcess, maxTold)
	}
	if v := from.Get(headerReceived); v != "" {
		if h.received, err = strconv.ParseUint(v, 10, 64); err != nil {
			return hello{}, fmt.Errorf("%s: %q is no number of bytes", headerReceived, v)
		}
	}
	if v := from.Get(headerGrace); v != "" {
		seconds, err := strconv.ParseUint(v, 10, 31)
		if err != nil {
			return hello{}, fmt.Errorf("%s: %q is no number of seconds", headerGrace, v)
		}
		h.grace = time.Duration(seconds) * time.Second
	}
	return h, nil
}

// refusal is an answer that is no upgrade.
type refusal struct {
	status int
	text   string
}

func (e *refusal) Error() string {
	return fmt.Sprintf("%d %s: %s", e.status, http.StatusText(e.status), e.text)
}

// errForeign is an answer in another language than HTTP/1.1: a daemon that speaks HTTP/2 only.
var errForeign = errors.New("the daemon does not answer in HTTP/1.1")

// ask makes the client's half of the handshake on a new path. The path is closed on an error.
func ask(ctx context.Context, conn net.Conn, say hello, t timing) (hello, *bufio.Reader, error) {
	_ = conn.SetDeadline(time.Now().Add(handshakeTime))
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	told, r, err := exchange(conn, say, t)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close()
		return hello{}, nil, err
	}
	_ = conn.SetDeadline(time.Time{})
	return told, r, nil
}

func exchange(conn net.Conn, say hello, t timing) (hello, *bufio.Reader, error) {
	req := &http.Request{
		Method: http.MethodPost, URL: &url.URL{Path: Path}, Host: "localhost", Header: http.Header{}, ProtoMajor: 1, ProtoMinor: 1,
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", Protocol)
	say.put(req.Header)
	if err := req.Write(conn); err != nil {
		return hello{}, nil, err
	}
	limited := &io.LimitedReader{R: conn, N: maxHead}
	r := bufio.NewReader(limited)
	if first, err := r.Peek(1); err == nil && first[0] != 'H' {
		return hello{}, nil, errForeign
	}
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return hello{}, nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10)) // as much of the reason as there is
		return hello{}, nil, &refusal{status: resp.StatusCode, text: strings.TrimSpace(string(text))}
	}
	if got := resp.Header.Get("Upgrade"); got != Protocol {
		return hello{}, nil, &refusal{status: http.StatusNotImplemented, text: fmt.Sprintf("it upgrades to %q", got)}
	}
	told, err := readHello(resp.Header)
	if err == nil && told.token == "" {
		err = errors.New("the answer has no token")
	}
	if err != nil {
		return hello{}, nil, &refusal{status: http.StatusNotImplemented, text: err.Error()}
	}
	// What came behind the answer is frames already.
	whole, err := prefixconn.Unbuffer(conn, r)
	if err != nil {
		return hello{}, nil, err
	}
	return told, newReader(whole, t), nil
}

// answer is the daemon's half, on a connection that was taken over from the HTTP server.
func answer(conn net.Conn, say hello) error {
	h := http.Header{}
	h.Set("Connection", "Upgrade")
	h.Set("Upgrade", Protocol)
	say.put(h)
	var b strings.Builder
	b.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	if err := h.Write(&b); err != nil { // to memory
		return err
	}
	b.WriteString("\r\n")
	_ = conn.SetDeadline(time.Now().Add(handshakeTime))
	if _, err := io.WriteString(conn, b.String()); err != nil {
		return err
	}
	return conn.SetDeadline(time.Time{})
}
