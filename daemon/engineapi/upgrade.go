package engineapi

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"strings"

	"github.com/slipwaybuild/slipway/session"
)

// session turns the request into a session: the daemon becomes the HTTP/2 client. It returns when the session ends.
func (a *api) session(w http.ResponseWriter, r *http.Request) {
	err := a.Sessions.HandleHTTP(r.Context(), w, r)
	var bad *session.RequestError
	switch {
	case errors.As(err, &bad):
		writeError(w, http.StatusBadRequest, bad.Error())
	case err != nil:
		a.Logger.Debug("session ends", "error", err)
	}
}

// grpc turns the request into an HTTP/2 connection that the gRPC server serves.
func (a *api) grpc(w http.ResponseWriter, r *http.Request) {
	proto := r.Header.Get("Upgrade")
	switch {
	case proto == "":
		writeError(w, http.StatusBadRequest, "no upgrade proto in request")
		return
	case !strings.EqualFold(proto, "h2c"):
		writeError(w, http.StatusBadRequest, "protocol "+proto+" not supported")
		return
	}
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		writeError(w, http.StatusInternalServerError, "connection cannot be upgraded")
		return
	}
	conn, buf, err := hijacker.Hijack()
	if err != nil {
		writeError(w, http.StatusInternalServerError, "upgrade connection: "+err.Error())
		return
	}
	if _, err := conn.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")); err != nil {
		_ = conn.Close()
		return
	}
	// An eager client's preface may have been read along with the request.
	if err := a.GRPC.Put(r.Context(), &readAhead{Conn: conn, r: buf.Reader}); err != nil {
		_ = conn.Close()
	}
}

// readAhead is a connection of which some bytes were read already.
type readAhead struct {
	net.Conn
	r *bufio.Reader
}

func (c *readAhead) Read(p []byte) (int, error) { return c.r.Read(p) }
