package session

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/slipwaybuild/slipway/session/internal/prefixconn"
)

const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"

// HandleHTTP answers the request that opens a session, takes the connection over and returns when the session is over, which is as
// long as ctx at most.
//
// An error means that nothing was written yet, and the caller must answer: 400 for a [RequestError]. Once the connection is the
// session's, nothing may be written to w any more, so from there on HandleHTTP returns nil and logs what goes wrong.
func (m *Manager) HandleHTTP(ctx context.Context, w http.ResponseWriter, r *http.Request) error {
	switch proto := r.Header.Get("Upgrade"); proto {
	case Protocol:
	case "":
		return refuse(ErrNoUpgrade, "no upgrade proto in request")
	default:
		return refuse(ErrProtocol, "protocol %s not supported", proto)
	}
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		return refuse(ErrProtocol, "%s connection cannot be upgraded to %s", r.Proto, Protocol)
	}
	h, err := m.admit(ctx, r.Header)
	if err != nil {
		return err
	}
	conn, buf, err := hijacker.Hijack()
	if err != nil {
		m.dismiss(h)
		return fmt.Errorf("session %s: take over the connection: %w", h.id, err)
	}
	// A server's read and write timeouts are for requests, and a session lives for hours. Where a connection has no deadlines
	// there is none to take off.
	_ = conn.SetDeadline(time.Time{})
	keepTCPAlive(conn)
	whole, err := prefixconn.Unbuffer(conn, buf.Reader) // an eager client's first bytes may have come with its request
	if err == nil {
		_, err = conn.Write([]byte(switching))
	}
	if err != nil {
		_ = conn.Close()
		m.dismiss(h)
		m.o.Logger.Debug("session not opened", "session", h.id, "cause", err)
		return nil
	}
	if err := m.run(ctx, whole, h); err != nil {
		m.o.Logger.Info("session lost", "session", h.id, "cause", err)
	}
	return nil
}

// dismiss undoes admit when there is no connection to run.
func (m *Manager) dismiss(h handshake) {
	m.release(h.key())
	m.active.Done()
}
