package session

import (
	"context"
	"net"

	"google.golang.org/grpc"
)

// Attachable is a service that a client offers on its session.
type Attachable interface {
	// Register puts the service on the session's server. It is called once, before the session runs.
	Register(*grpc.Server)
}

// Dialer opens the connection a session is served on. meta holds the handshake headers (X-Docker-Expose-Session-*).
type Dialer func(ctx context.Context, proto string, meta map[string][]string) (net.Conn, error)

// Caller is the daemon's end of one session. It is valid until Done is closed; calls then fail with codes.Unavailable.
type Caller interface {
	ID() string
	// Name is what the client calls the session; only old clients send one.
	Name() string
	// SharedKey is the client's hint of which directory this is; "" if it gave none.
	SharedKey() string
	// Supports tells whether the client announced a method, "/package.Service/Method"; case does not count.
	Supports(method string) bool
	// Conn carries calls to the client.
	Conn() *grpc.ClientConn
	// Done is closed when the session is over.
	Done() <-chan struct{}
}
