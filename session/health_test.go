package session_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/buildkit/session/secrets"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/sessiontest"
)

// curious checks as often as can be, so that a test need not wait for it; impatient gives up soon, too.
var (
	curious   = session.Health{Interval: time.Millisecond}
	impatient = session.Health{Interval: time.Millisecond, Timeout: 200 * time.Millisecond, Patience: 400 * time.Millisecond}
)

// client runs a foreign gRPC server as a session and returns the daemon's end and what HandleConn returned.
func client(t *testing.T, m *session.Manager, srv *grpc.Server, methods ...string) (session.Caller, net.Conn, <-chan error) {
	t.Helper()
	ours, theirs := socketPair(t)
	c, done := serveOn(t, m, srv, ours, theirs, methods...)
	return c, ours, done
}

// serveOn is client on a connection that is there already.
func serveOn(t *testing.T, m *session.Manager, srv *grpc.Server, ours, theirs net.Conn, methods ...string) (session.Caller, <-chan error) {
	t.Helper()
	l := &once{conn: make(chan net.Conn, 1), closed: make(chan struct{})}
	l.conn <- ours
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(l)
	}()
	done := make(chan error, 1)
	go func() {
		done <- m.HandleConn(context.WithoutCancel(t.Context()), theirs, map[string][]string{
			"X-Docker-Expose-Session-Uuid": {t.Name()}, "X-Docker-Expose-Session-Grpc-Method": methods,
		})
	}()
	t.Cleanup(func() {
		srv.Stop()
		<-served
	})
	c, err := m.Get(t.Context(), t.Name())
	if err != nil {
		t.Fatal(err)
	}
	return c, done
}

func socketPair(t *testing.T) (net.Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	a, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

type once struct {
	conn   chan net.Conn
	closed chan struct{}
}

func (l *once) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *once) Close() error { close(l.closed); return nil }

func (l *once) Addr() net.Addr { return &net.UnixAddr{Name: "once", Net: "unix"} }

func TestClientWithoutHealthServiceSurvives(t *testing.T) {
	t.Parallel()
	m := sessiontest.NewManager(t, session.ManagerOptions{Health: curious})
	var unknown atomic.Int32
	srv := grpc.NewServer(grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error {
		unknown.Add(1)
		return status.Error(codes.Unimplemented, "no such service")
	}))
	(&echo{}).Register(srv)
	c, _, done := client(t, m, srv, secrets.Secrets_GetSecret_FullMethodName)
	for range 50 { // longer than any patience
		if got, err := ask(t.Context(), c, "alive"); got != "alive" || err != nil {
			t.Fatalf("call: %q, %v", got, err)
		}
		select {
		case err := <-done:
			t.Fatalf("session ended: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
	if n := unknown.Load(); n != 0 {
		t.Errorf("%d calls of methods that the client did not announce", n)
	}
}

func TestClientThatOnlyClaimsHealthSurvives(t *testing.T) {
	t.Parallel()
	m := sessiontest.NewManager(t, session.ManagerOptions{Health: curious})
	checked := make(chan struct{}, 1000)
	srv := grpc.NewServer(grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error {
		checked <- struct{}{}
		return status.Error(codes.Unimplemented, "no such service")
	}))
	_, _, done := client(t, m, srv, healthpb.Health_Check_FullMethodName, healthpb.Health_Watch_FullMethodName)
	for range 100 {
		select {
		case err := <-done:
			t.Fatalf("session ended: %v", err)
		case <-checked:
		}
	}
}

func TestClientThatStopsServing(t *testing.T) {
	t.Parallel()
	m := sessiontest.NewManager(t, session.ManagerOptions{})
	srv := grpc.NewServer()
	h := health.NewServer()
	healthpb.RegisterHealthServer(srv, h)
	c, _, done := client(t, m, srv, healthpb.Health_Check_FullMethodName, healthpb.Health_Watch_FullMethodName)
	h.Shutdown()
	<-c.Done()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "no longer serves") {
		t.Errorf("HandleConn: %v", err)
	}
}

func TestSilentClientIsGivenUp(t *testing.T) {
	t.Parallel()
	m := sessiontest.NewManager(t, session.ManagerOptions{Health: impatient})
	near, far, cut := cuttable(t)
	srv := grpc.NewServer()
	healthpb.RegisterHealthServer(srv, health.NewServer())
	c, done := serveOn(t, m, srv, near, far, healthpb.Health_Check_FullMethodName)
	cut()
	<-c.Done()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "has been silent for") {
		t.Errorf("HandleConn: %v", err)
	}
}

func TestKilledClientIsNoticedAtOnce(t *testing.T) {
	t.Parallel()
	m := sessiontest.NewManager(t, session.ManagerOptions{Health: session.Health{Interval: time.Hour, Patience: time.Hour}})
	c, conn, done := client(t, m, grpc.NewServer())
	if err := conn.Close(); err != nil { // what the kernel does for a killed process
		t.Fatal(err)
	}
	<-c.Done()
	if err := <-done; err != nil {
		t.Errorf("HandleConn: %v", err)
	}
	if _, err := ask(t.Context(), c, "x"); status.Code(err) != codes.Unavailable || errors.Is(err, context.Canceled) {
		t.Errorf("call: %v", err)
	}
}

func TestClientWithoutHealthServiceIsPinged(t *testing.T) {
	if testing.Short() {
		t.Skip("gRPC pings after 10s at the earliest")
	}
	t.Parallel()
	m := sessiontest.NewManager(t, session.ManagerOptions{Health: session.Health{PingEvery: 10 * time.Second, Patience: time.Second}})
	e := &echo{started: make(chan struct{}, 1)}
	srv := grpc.NewServer()
	e.Register(srv)
	near, far, cut := cuttable(t)
	c, done := serveOn(t, m, srv, near, far, secrets.Secrets_GetSecret_FullMethodName)
	failed := make(chan error, 1)
	go func() { _, err := ask(t.Context(), c, "hang"); failed <- err }()
	<-e.started
	cut()
	if err := <-failed; status.Code(err) != codes.Unavailable {
		t.Errorf("call over the cut line: %v", err)
	}
	<-c.Done()
	<-done
}

// cuttable returns both ends of a line that can be cut without either end being told.
func cuttable(t *testing.T) (near, far net.Conn, cut func()) {
	near, nearInner := net.Pipe()
	far, farInner := net.Pipe()
	severed := make(chan struct{})
	forward := func(to, from net.Conn) {
		buf := make([]byte, 64<<10)
		for {
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			select {
			case <-severed:
				continue
			default:
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
	}
	go forward(nearInner, farInner)
	go forward(farInner, nearInner)
	t.Cleanup(func() { _, _ = nearInner.Close(), farInner.Close() })
	return near, far, sync.OnceFunc(func() { close(severed) })
}
