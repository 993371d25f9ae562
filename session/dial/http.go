package dial

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/internal/prefixconn"
)

// maxRefusal bounds what is read of an answer that refuses, in bytes.
const maxRefusal = 4 << 10

// HTTP returns a dialer that opens a connection with open and asks for a session on it: POST /session with an upgrade to h2c. The
// session owns the connection.
func HTTP(open func(context.Context) (net.Conn, error)) session.Dialer {
	return func(ctx context.Context, proto string, meta map[string][]string) (net.Conn, error) {
		conn, err := open(ctx)
		if err != nil {
			return nil, err
		}
		// The handshake has no time limit of its own; ctx ends it by closing the connection under it.
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		up, err := upgrade(ctx, conn, proto, meta)
		if !stop() && err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			_ = conn.Close()
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return nil, fmt.Errorf("POST /session: %w", err)
		}
		return up, nil
	}
}

// Refused is an answer to POST /session that is not an upgrade.
type Refused struct {
	// Status is the answer's status line, such as "400 Bad Request".
	Status string
	// Message is what the daemon said, in its JSON or plainly.
	Message string
}

func (e *Refused) Error() string {
	if e.Message == "" {
		return "the daemon refused the session: " + e.Status
	}
	return fmt.Sprintf("the daemon refused the session: %s: %s", e.Status, e.Message)
}

func upgrade(ctx context.Context, conn net.Conn, proto string, meta map[string][]string) (net.Conn, error) {
	req := (&http.Request{
		Method:     http.MethodPost,
		URL:        &url.URL{Path: "/session"},
		Host:       "localhost", // daemons do not look at it, but HTTP/1.1 wants one
		Header:     http.Header{},
		ProtoMajor: 1, ProtoMinor: 1,
	}).WithContext(ctx)
	maps.Copy(req.Header, meta)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", proto)
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, req)
	if err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("the daemon closed the connection without an answer")
		}
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal)) // as much of the reason as there is
		return nil, &Refused{Status: resp.Status, Message: reason(body)}
	}
	if got := resp.Header.Get("Upgrade"); !strings.EqualFold(got, proto) {
		return nil, fmt.Errorf("the daemon upgraded to %q instead of %q", got, proto)
	}
	return prefixconn.Unbuffer(conn, br) // the daemon may begin to speak right behind its answer
}
