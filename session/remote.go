package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/slipwaybuild/slipway/session/interceptors"
)

// remote is the daemon's end of one session.
type remote struct {
	handshake
	supported map[string]struct{} // methods in lower case
	conn      *watchedConn
	cc        *grpc.ClientConn

	done  chan struct{}
	once  sync.Once
	cause error // why it ended; read after done is closed
}

var _ Caller = (*remote)(nil)

func (r *remote) ID() string             { return r.id }
func (r *remote) Name() string           { return r.name }
func (r *remote) SharedKey() string      { return r.sharedKey }
func (r *remote) Conn() *grpc.ClientConn { return r.cc }
func (r *remote) Done() <-chan struct{}  { return r.done }

func (r *remote) Supports(method string) bool {
	_, ok := r.supported[strings.ToLower(method)]
	return ok
}

func (r *remote) over() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// end marks the session as over. The first cause counts.
func (r *remote) end(cause error) {
	r.once.Do(func() {
		r.cause = cause
		close(r.done)
	})
}

func newRemote(h handshake, conn net.Conn) *remote {
	r := &remote{
		handshake: h,
		supported: make(map[string]struct{}, len(h.methods)),
		conn:      watchConn(conn),
		done:      make(chan struct{}),
	}
	for _, m := range h.methods {
		r.supported[strings.ToLower(m)] = struct{}{}
	}
	return r
}

// handshakeTime bounds the HTTP/2 handshake: a client that has just sent its request is there to answer.
const handshakeTime = 20 * time.Second

// connect makes the connection an HTTP/2 one. It returns once the client has answered with its settings. On an error the
// connection is closed.
func (r *remote) connect(ctx context.Context, o ManagerOptions) error {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	cc, err := grpc.NewClient("passthrough:///session", r.dialOptions(o)...)
	if err != nil {
		_ = r.conn.Close() // the error that counts is err
		return fmt.Errorf("session %s: %w", r.id, err)
	}
	r.cc = cc
	cc.Connect()
	for {
		state := cc.GetState()
		switch state {
		case connectivity.Ready:
			return nil
		case connectivity.TransientFailure, connectivity.Shutdown:
			return r.abort(r.brokenBy())
		case connectivity.Idle, connectivity.Connecting:
		}
		if !cc.WaitForStateChange(ctx, state) {
			return r.abort(context.Cause(ctx))
		}
	}
}

func (r *remote) abort(err error) error {
	r.hangUp()
	return fmt.Errorf("session %s: HTTP/2 handshake with the client: %w", r.id, err)
}

// hangUp closes the connection and what runs on it, and returns when gRPC has let go of it.
func (r *remote) hangUp() {
	_ = r.conn.Close() // first, so that gRPC does not try to say goodbye to a client that may not be reading
	_ = r.cc.Close()
}

// brokenBy says how the connection ended, in words for a log.
func (r *remote) brokenBy() error {
	select {
	case <-r.conn.broken:
		if errors.Is(r.conn.cause, io.EOF) {
			return errors.New("the client closed the connection")
		}
		return fmt.Errorf("connection to the client: %w", r.conn.cause)
	default:
		return errors.New("the client does not speak HTTP/2")
	}
}

func (r *remote) dialOptions(o ManagerOptions) []grpc.DialOption {
	var used sync.Once
	opts := []grpc.DialOption{
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			var conn net.Conn
			used.Do(func() { conn = r.conn })
			if conn == nil {
				return nil, fmt.Errorf("session %s has one connection, and it is over", r.id)
			}
			return conn, nil
		}),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"), // what clients have always been sent
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(0), // a quiet session is not to be hung up on: it could not be dialled again
		grpc.WithInitialWindowSize(streamWindow), grpc.WithInitialConnWindowSize(connWindow),
		grpc.WithReadBufferSize(ioBuffer), grpc.WithWriteBufferSize(ioBuffer),
		grpc.WithChainUnaryInterceptor(r.unaryGone), grpc.WithChainStreamInterceptor(r.streamGone),
	}
	if !r.Supports(methodCheck) {
		opts = append(opts, grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: o.Health.PingEvery, Timeout: o.Health.Patience,
			// Only while a call is in progress. Many gRPC servers hang up on a peer that pings an idle connection, and then
			// nobody is waiting for the client anyway.
			PermitWithoutStream: false,
		}))
	}
	return append(opts, interceptors.Client(interceptors.Options{Logger: o.Logger, Tracer: o.Tracer})...)
}

// gone makes the error of a call on a session that is over say so. gRPC reports a closed connection as Canceled, from which a
// caller would conclude that it had cancelled the call itself.
func (r *remote) gone(ctx context.Context, err error) error {
	if err == nil || errors.Is(err, io.EOF) || ctx.Err() != nil {
		return err
	}
	switch status.Code(err) {
	case codes.Canceled, codes.Unavailable:
		if r.over() {
			return status.Errorf(codes.Unavailable, "session %s is over: %v", r.id, r.cause)
		}
	default:
	}
	return err
}

func (r *remote) unaryGone(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return r.gone(ctx, invoker(ctx, method, req, reply, cc, opts...))
}

func (r *remote) streamGone(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := streamer(ctx, desc, cc, method, opts...)
	if err != nil {
		return nil, r.gone(ctx, err)
	}
	return &remoteStream{ClientStream: s, r: r, ctx: ctx}, nil
}

type remoteStream struct {
	grpc.ClientStream
	r   *remote
	ctx context.Context // the caller's; the stream's own has ended by the time an error is looked at
}

func (s *remoteStream) RecvMsg(m any) error { return s.r.gone(s.ctx, s.ClientStream.RecvMsg(m)) }
func (s *remoteStream) SendMsg(m any) error { return s.r.gone(s.ctx, s.ClientStream.SendMsg(m)) }

// keepTCPAlive asks the kernel to notice a host that vanished without a word. Unix sockets need no such thing.
func keepTCPAlive(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		// Where it cannot be set, the health check still notices, only later.
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 6})
	}
}
