package server

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/slipwaybuild/slipway/daemon/engineapi"
	"github.com/slipwaybuild/slipway/daemon/listen"
	"github.com/slipwaybuild/slipway/session"
)

// Clients that send slowly, too much, half or nothing are hung up on, and hold neither connections nor requests.
func TestClientsThatWasteTimeAreHungUpOn(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	sessions := session.NewManager(session.ManagerOptions{})
	queue := listen.NewQueue()
	h := engineapi.New(engineapi.Options{Sessions: sessions, GRPC: queue, Version: "1", Logger: log})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conns := &counter{}
	s := newHTTP(h, limits{header: 50 * time.Millisecond, headerBytes: 8 << 10, idle: 50 * time.Millisecond}, log)
	done := make(chan error, 1)
	go func() { done <- s.Serve(&countingListener{Listener: l, counter: conns}) }()
	defer func() {
		_ = s.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		_ = sessions.Close()
		_ = queue.Close()
	}()
	for name, test := range map[string]struct {
		send      string
		halfClose bool
		want      string
	}{
		"nothing":                {"", false, ""},
		"half a request line":    {"GET /_pi", false, ""},
		"a header that dribbles": {"GET /_ping HTTP/1.1\r\nHost: x\r\nX-A: b", false, ""},
		"a request and no other": {"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n", false, "200 OK"},
		"a huge header":          {"GET /_ping HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 64<<10), false, "431 Request Header Fields Too Large"},
		"half a request":         {"GET /_ping HTTP/1.1\r\nHos", true, ""},
		"half a body":            {"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc", true, "404 Not Found"},
		"half an upgrade":        {"POST /session HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nX-Docker-Expose-Session-Uuid: u\r\n\r\n", true, "101 Switching Protocols"},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, test.send) // may be hung up on before its end
			if test.halfClose {
				_ = conn.(*net.TCPConn).CloseWrite()
			}
			_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			answer, err := io.ReadAll(conn)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the daemon holds on to the connection")
			}
			if !strings.Contains(string(answer), test.want) {
				t.Errorf("answered %q", answer)
			}
		})
	}
	for deadline := time.Now().Add(20 * time.Second); conns.value() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are left", conns.value())
		}
	}
}
