package engineapi

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/slipwaybuild/slipway/session/resume"
	"github.com/slipwaybuild/slipway/session/samehost"
)

// connectionRoutes are those that turn the request's connection into another one.
func (a *api) connectionRoutes() []route {
	return []route{
		{http.MethodPost, "/session", a.session},
		{http.MethodPost, "/grpc", a.grpc},
		{http.MethodPost, resume.Path, a.resume},
		{http.MethodPost, samehost.Path, a.sameHost},
	}
}

// session turns the request into a session: the daemon becomes the HTTP/2 client. It returns when the session ends.
func (a *api) session(w http.ResponseWriter, r *http.Request) error {
	return a.Sessions.HandleHTTP(r.Context(), w, r)
}

// resume turns the request into a path of a connection that outlives it. What such a connection speaks is found out as on a new one.
func (a *api) resume(w http.ResponseWriter, r *http.Request) error {
	if a.Resume == nil {
		return notFound("page not found")
	}
	return a.Resume.HandleHTTP(w, r)
}

// sameHost takes a descriptor.
func (a *api) sameHost(w http.ResponseWriter, r *http.Request) error {
	if a.SameHost == nil {
		return notFound("page not found")
	}
	if r.Header.Get("Upgrade") != samehost.Protocol {
		return invalid("no upgrade to %s in request", samehost.Protocol)
	}
	a.SameHost.ServeHTTP(w, r)
	return nil
}

// handshakeTime is how long a client may take to accept the answer that changes the protocol.
const handshakeTime = 30 * time.Second

// grpc turns the request into an HTTP/2 connection that the gRPC server serves.
func (a *api) grpc(w http.ResponseWriter, r *http.Request) error {
	switch proto := r.Header.Get("Upgrade"); {
	case proto == "":
		return invalid("no upgrade proto in request")
	case !strings.EqualFold(proto, "h2c"):
		return invalid("protocol %s not supported", proto)
	}
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		return invalid("%s connection cannot be upgraded to h2c", r.Proto)
	}
	conn, buf, err := hijacker.Hijack()
	if err != nil {
		return fmt.Errorf("upgrade connection: %w", err)
	}
	// From here on the connection is ours to answer on and to close; there is no request any more.
	_ = conn.SetDeadline(time.Now().Add(handshakeTime))
	if _, err := conn.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")); err != nil {
		_ = conn.Close()
		return fmt.Errorf("answer upgrade: %w", err)
	}
	// The server's timeouts are for requests, and this connection lives as long as its client.
	_ = conn.SetDeadline(time.Time{})
	// An eager client's preface may have been read along with the request.
	if err := a.GRPC.Put(r.Context(), &readAhead{Conn: conn, r: buf.Reader}); err != nil {
		_ = conn.Close()
		return fmt.Errorf("pass the connection on: %w", err)
	}
	return nil
}

// readAhead is a connection of which some bytes were read already.
type readAhead struct {
	net.Conn
	r *bufio.Reader
}

// NetConn is the connection itself.
func (c *readAhead) NetConn() net.Conn { return c.Conn }

func (c *readAhead) Read(p []byte) (int, error) { return c.r.Read(p) }
