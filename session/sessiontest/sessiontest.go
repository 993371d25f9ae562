// Package sessiontest connects sessions to managers in tests, over real unix sockets and through both doors.
package sessiontest

import (
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/dial"
)

// NewManager returns a manager that is closed when the test ends.
func NewManager(t testing.TB, o session.ManagerOptions) *session.Manager {
	t.Helper()
	m := session.NewManager(o)
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("close manager: %v", err)
		}
	})
	return m
}

// Door is a way for sessions to reach a manager.
type Door struct {
	Name string
	// Open serves m until the test ends and returns how to reach it.
	Open func(t testing.TB, m *session.Manager) session.Dialer
}

// Doors lists both doors.
func Doors() []Door {
	return []Door{{Name: "http", Open: HTTP}, {Name: "control", Open: Control}}
}

// HTTP serves POST /session on a unix socket.
func HTTP(t testing.TB, m *session.Manager) session.Dialer {
	t.Helper()
	return dial.HTTP(DialSocket(HTTPSocket(t, m)))
}

// HTTPSocket serves POST /session and returns the path of the socket.
func HTTPSocket(t testing.TB, m *session.Manager) string {
	t.Helper()
	l, path := listen(t)
	srv := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			err := m.HandleHTTP(r.Context(), w, r)
			if bad := (*session.RequestError)(nil); errors.As(err, &bad) {
				http.Error(w, err.Error(), http.StatusBadRequest)
			} else if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		}),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l) // ends with ErrServerClosed
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
	return path
}

// DialSocket returns a function that connects to a unix socket.
func DialSocket(path string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}
}

// Control serves Control.Session on a unix socket.
func Control(t testing.TB, m *session.Manager) session.Dialer {
	t.Helper()
	return dial.Control(ControlClient(t, m))
}

// ControlClient serves Control.Session on a unix socket and returns a client of it.
func ControlClient(t testing.TB, m *session.Manager) controlapi.ControlClient {
	t.Helper()
	l, path := listen(t)
	srv := grpc.NewServer()
	controlapi.RegisterControlServer(srv, &control{m: m})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l) // ends with Stop
	}()
	t.Cleanup(func() {
		srv.Stop()
		<-done
	})
	cc, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return controlapi.NewControlClient(cc)
}

type control struct {
	controlapi.UnimplementedControlServer
	m *session.Manager
}

func (c *control) Session(stream controlapi.Control_SessionServer) error {
	return dial.ServeControl(stream, c.m)
}

func listen(t testing.TB) (net.Listener, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, path
}

// Run runs a session and returns the daemon's end of it, once it is there. The session is closed when the test ends; Run's error
// must then be nil.
func Run(t testing.TB, m *session.Manager, d session.Dialer, s *session.Session) session.Caller {
	t.Helper()
	done := make(chan error, 1)
	ctx := context.WithoutCancel(t.Context())
	go func() { done <- s.Run(ctx, d) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close session: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("run session: %v", err)
		}
	})
	for {
		c, err := m.Get(t.Context(), s.ID())
		if errors.Is(err, session.ErrNoSession) { // a manager that waits briefly, on a busy machine
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
}

// Pair returns a group of one session that offers the services, connected over HTTP to a manager of its own.
func Pair(t testing.TB, services ...session.Attachable) *session.Group {
	t.Helper()
	m := NewManager(t, session.ManagerOptions{})
	s := session.New(session.Options{})
	s.Allow(services...)
	return m.Group(Run(t, m, HTTP(t, m), s).ID())
}
