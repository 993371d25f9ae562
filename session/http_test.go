package session_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/dial"
	"github.com/slipwaybuild/slipway/session/sessiontest"
)

const wantSwitch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"

// request sends raw bytes to the door and returns the connection.
func request(t *testing.T, socket, raw string) net.Conn {
	t.Helper()
	conn, err := sessiontest.DialSocket(socket)(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte(raw)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func readString(t *testing.T, r io.Reader, n int) string {
	t.Helper()
	buf := make([]byte, n)
	if n, err := io.ReadFull(r, buf); err != nil {
		t.Fatalf("read: %v after %q", err, buf[:n])
	}
	return string(buf)
}

func TestHandshakeOnTheWire(t *testing.T) {
	t.Parallel()
	m := sessiontest.NewManager(t, session.ManagerOptions{})
	socket := sessiontest.HTTPSocket(t, m)
	conn := request(t, socket, "POST /session HTTP/1.1\r\nHost:\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n"+
		"X-Docker-Expose-Session-Uuid: wireuuid1\r\nX-Docker-Expose-Session-Name: n\r\nX-Docker-Expose-Session-Sharedkey: k\r\n"+
		"X-Docker-Expose-Session-Grpc-Method: /a.B/C\r\nX-Docker-Expose-Session-Grpc-Method: /a.B/D\r\n\r\n")
	if got := readString(t, conn, len(wantSwitch)); got != wantSwitch {
		t.Errorf("answer %q, want %q", got, wantSwitch)
	}
	if got := readString(t, conn, len(http2.ClientPreface)); got != http2.ClientPreface {
		t.Errorf("then %q, want HTTP/2's client preface", got)
	}
	if err := http2.NewFramer(conn, conn).WriteSettings(); err != nil {
		t.Fatal(err)
	}
	c, err := m.Get(t.Context(), "wireuuid1")
	if err != nil {
		t.Fatal(err)
	}
	if c.Name() != "n" || c.SharedKey() != "k" || !c.Supports("/A.b/c") || !c.Supports("/a.B/D") || c.Supports("/a.B/E") {
		t.Errorf("name %q, key %q, or the methods are wrong", c.Name(), c.SharedKey())
	}
	// No health service: HTTP/2 pings are all that may be sent, and a closed connection is still noticed.
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	<-c.Done()
}

func TestEagerClientIsNotCutShort(t *testing.T) {
	t.Parallel()
	m := sessiontest.NewManager(t, session.ManagerOptions{})
	socket := sessiontest.HTTPSocket(t, m)
	settings := "\x00\x00\x00\x04\x00\x00\x00\x00\x00" // an empty SETTINGS frame, in one packet with the request
	request(t, socket, "POST /session HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nX-Docker-Expose-Session-Uuid: eager\r\n\r\n"+settings)
	if _, err := m.Get(t.Context(), "eager"); err != nil {
		t.Fatal(err)
	}
}

func TestRefusedHandshakes(t *testing.T) {
	t.Parallel()
	m := sessiontest.NewManager(t, session.ManagerOptions{})
	socket := sessiontest.HTTPSocket(t, m)
	sessiontest.Run(t, m, dial.HTTP(sessiontest.DialSocket(socket)), session.New(session.Options{ID: "taken"}))
	long := strings.Repeat("x", 5000)
	for name, tc := range map[string]struct {
		headers string
		want    string
	}{
		"no upgrade":    {"X-Docker-Expose-Session-Uuid: a\r\n", "no upgrade proto in request"},
		"other proto":   {"Connection: Upgrade\r\nUpgrade: websocket\r\nX-Docker-Expose-Session-Uuid: a\r\n", "protocol websocket not supported"},
		"duplicate id":  {"Connection: Upgrade\r\nUpgrade: h2c\r\nX-Docker-Expose-Session-Uuid: taken\r\n", "session taken already exists"},
		"no id":         {"Connection: Upgrade\r\nUpgrade: h2c\r\n", "no session id: header X-Docker-Expose-Session-Uuid is missing"},
		"id with colon": {"Connection: Upgrade\r\nUpgrade: h2c\r\nX-Docker-Expose-Session-Uuid: a:b\r\n", `X-Docker-Expose-Session-Uuid: "a:b" has characters that an id cannot have`},
		"long name": {"Connection: Upgrade\r\nUpgrade: h2c\r\nX-Docker-Expose-Session-Uuid: a\r\nX-Docker-Expose-Session-Name: " + long + "\r\n",
			"X-Docker-Expose-Session-Name: 5000 bytes, at most 4096 are taken"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := request(t, socket, "POST /session HTTP/1.1\r\nHost: x\r\n"+tc.headers+"Content-Length: 0\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			body, err := io.ReadAll(resp.Body)
			if got := strings.TrimSpace(string(body)); resp.StatusCode != http.StatusBadRequest || got != tc.want || err != nil {
				t.Errorf("%d %q, %v; want 400 %q", resp.StatusCode, got, err, tc.want)
			}
		})
	}
	t.Run("not hijackable", func(t *testing.T) {
		t.Parallel()
		r := httptest.NewRequest(http.MethodPost, "/session", nil)
		r.Header.Set("Upgrade", "h2c")
		r.Header.Set("X-Docker-Expose-Session-Uuid", "a")
		if err := m.HandleHTTP(t.Context(), httptest.NewRecorder(), r); !errors.Is(err, session.ErrProtocol) {
			t.Errorf("%v, want ErrProtocol", err)
		}
	})
	t.Run("told to the client", func(t *testing.T) {
		t.Parallel()
		err := session.New(session.Options{ID: "taken"}).Run(t.Context(), dial.HTTP(sessiontest.DialSocket(socket)))
		refused := (*dial.Refused)(nil)
		if !errors.As(err, &refused) || refused.Message != "session taken already exists" {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestClientThatDoesNotSpeakHTTP2(t *testing.T) {
	t.Parallel()
	m := sessiontest.NewManager(t, session.ManagerOptions{Wait: time.Millisecond})
	ours, theirs := net.Pipe()
	go func() {
		_, _ = io.Copy(io.Discard, theirs)
	}()
	go func() {
		_, _ = fmt.Fprintf(theirs, "HTTP/1.1 400 Bad Request\r\n\r\n%s", strings.Repeat("x", 100))
		_ = theirs.Close()
	}()
	err := m.HandleConn(t.Context(), ours, map[string][]string{"x-docker-expose-session-uuid": {"odd"}})
	if err == nil || !strings.Contains(err.Error(), "session odd: HTTP/2 handshake") {
		t.Errorf("HandleConn: %v", err)
	}
	if _, err := m.Get(t.Context(), "odd"); !errors.Is(err, session.ErrNoSession) {
		t.Errorf("Get: %v", err)
	}
}

func TestHandleConnEnds(t *testing.T) {
	why := errors.New("daemon stops")
	start := func(t *testing.T, ctx context.Context, m *session.Manager) (<-chan error, session.Caller) {
		s := session.New(session.Options{})
		done, ran := make(chan error, 1), make(chan error, 1)
		go func() {
			ran <- s.Run(context.WithoutCancel(t.Context()), func(_ context.Context, _ string, meta map[string][]string) (net.Conn, error) {
				ours, theirs := net.Pipe()
				go func() { done <- m.HandleConn(ctx, theirs, meta) }()
				return ours, nil
			})
		}()
		c, err := m.Get(t.Context(), s.ID())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := <-ran; err != nil {
				t.Errorf("Run after the daemon hung up: %v", err)
			}
		})
		return done, c
	}
	t.Run("with its context", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		done, c := start(t, ctx, sessiontest.NewManager(t, session.ManagerOptions{}))
		cancel(why)
		<-c.Done()
		if err := <-done; !errors.Is(err, why) {
			t.Errorf("HandleConn: %v", err)
		}
	})
	t.Run("with the manager", func(t *testing.T) {
		m := session.NewManager(session.ManagerOptions{})
		done, c := start(t, t.Context(), m)
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		<-c.Done()
		if err := <-done; !errors.Is(err, session.ErrClosed) {
			t.Errorf("HandleConn: %v", err)
		}
		if _, err := m.Get(t.Context(), "x"); !errors.Is(err, session.ErrClosed) {
			t.Errorf("Get of a closed manager: %v", err)
		}
		if err := m.HandleConn(t.Context(), &net.TCPConn{}, map[string][]string{"X-Docker-Expose-Session-Uuid": {"x"}}); !errors.Is(err, session.ErrClosed) {
			t.Errorf("HandleConn of a closed manager: %v", err)
		}
	})
}
