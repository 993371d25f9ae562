package session

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opentracing/opentracing-go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/slipwaybuild/slipway/session/interceptors"
)

// Protocol is what a session's connection speaks after the handshake: HTTP/2 without TLS.
const Protocol = "h2c"

// HTTP/2 windows and buffers. A build context is hundreds of megabytes over a unix socket, where gRPC's 64 KiB windows make
// both ends wait for each other; these let a stream run freely and still bound what a slow reader holds in memory.
const (
	streamWindow = 4 << 20
	connWindow   = 16 << 20
	ioBuffer     = 256 << 10
)

// Options describe a client's session.
type Options struct {
	// ID names the session to the daemon. Whoever knows it can use the session's services through the daemon, so it is random
	// when left empty, and should be.
	ID string
	// Name is what old daemons show for the session, usually the base name of the context directory.
	Name string
	// SharedKey hints that two sessions send the same directory. "" gives no hint.
	SharedKey string
	// Logger hears of calls (debug) and panics (error). nil is silence.
	Logger *slog.Logger
	// Tracer makes a span of each call. nil makes none.
	Tracer opentracing.Tracer
}

// Session is the client's end: a gRPC server on a connection that the client dials. Its methods may be called concurrently.
type Session struct {
	hello  handshake
	server *grpc.Server
	health *health.Server

	mu      sync.Mutex // guards what follows
	started bool
	closed  bool
	cancel  context.CancelFunc // ends Run; set when started
	done    chan struct{}      // closed when Run has returned; set when started
}

// New returns a session that offers nothing but its health.
func New(o Options) *Session {
	if o.ID == "" {
		o.ID = NewID()
	}
	opts := append(interceptors.Server(interceptors.Options{Logger: o.Logger, Tracer: o.Tracer}),
		grpc.InitialWindowSize(streamWindow), grpc.InitialConnWindowSize(connWindow),
		grpc.ReadBufferSize(ioBuffer), grpc.WriteBufferSize(ioBuffer),
		// The daemon may ping as often as it likes; gRPC's default would hang up on it.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
	)
	s := &Session{
		hello:  handshake{id: o.ID, name: o.Name, sharedKey: o.SharedKey},
		server: grpc.NewServer(opts...),
		health: health.NewServer(),
	}
	healthpb.RegisterHealthServer(s.server, s.health)
	return s
}

// NewID returns a random id of 25 characters, 0-9 and a-z, which is 128 bits of randomness.
func NewID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the program rather
	id := new(big.Int).SetBytes(b[:]).Text(36)
	return strings.Repeat("0", 25-len(id)) + id
}

// ID returns the session's id.
func (s *Session) ID() string { return s.hello.id }

// Allow offers services. It panics once the session runs, since the daemon was told by then what there is; offering one service
// twice ends the program.
func (s *Session) Allow(services ...Attachable) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started {
		panic("session: Allow called after Run")
	}
	for _, a := range services {
		a.Register(s.server)
	}
}

// Run dials the daemon and serves until the session is over: nil after Close and after the daemon hung up, the context's cause
// if ctx ended it, otherwise what the dialer said. ctx is the session's whole lifetime. A session runs once.
func (s *Session) Run(ctx context.Context, dial Dialer) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	if s.started {
		s.mu.Unlock()
		return errors.New("session: Run called twice")
	}
	s.started = true
	s.done = make(chan struct{})
	runCtx, cancel := context.WithCancel(ctx)
	s.cancel = cancel
	s.mu.Unlock()
	defer close(s.done)
	defer cancel()
	defer s.server.Stop() // also when it never served: it holds nothing that should outlive Run

	conn, err := dial(runCtx, Protocol, s.announce())
	if err != nil {
		if s.isClosed() {
			return nil
		}
		return fmt.Errorf("open session: %w", err)
	}
	l := newOneConn(conn)
	defer context.AfterFunc(runCtx, l.hangUp)()
	err = s.server.Serve(l)
	l.hangUp()
	switch {
	case s.isClosed():
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, net.ErrClosed): // the connection ended, by the other side
		return nil
	}
	return err
}

// Close ends the session and waits for Run to return. Calls in progress are cut off. It is fine to call it twice, and before Run,
// which then does nothing.
func (s *Session) Close() error {
	s.mu.Lock()
	s.closed = true
	cancel, done := s.cancel, s.done
	s.mu.Unlock()
	if cancel == nil {
		s.server.Stop()
		return nil
	}
	cancel()
	<-done
	return nil
}

func (s *Session) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// announce computes the handshake from what is registered now.
func (s *Session) announce() map[string][]string {
	h := s.hello
	for service, info := range s.server.GetServiceInfo() {
		for _, m := range info.Methods {
			h.methods = append(h.methods, "/"+service+"/"+m.Name)
		}
	}
	slices.Sort(h.methods)
	return h.meta()
}
