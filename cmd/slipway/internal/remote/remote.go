// Package remote is a connection to the daemon: BuildKit's Control service, and sessions beside it.
package remote

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/slipwaybuild/slipway/cmd/slipway/internal/address"
	"github.com/slipwaybuild/slipway/cmd/slipway/internal/ondemand"
	"github.com/slipwaybuild/slipway/session/resume"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// dialTime is how long a daemon's host may take to accept a connection.
const dialTime = 30 * time.Second

// maxMessage is the largest gRPC message either way, in bytes.
const maxMessage = 16 << 20

// Daemon is a connection to a daemon.
type Daemon struct {
	Control controlapi.ControlClient
	// Content is what builds left, by digest.
	Content contentapi.ContentClient

	at   address.Address
	conn *grpc.ClientConn

	mu    sync.Mutex
	first net.Conn // open already, for whoever dials first; nil if there is none
	plain bool     // the daemon keeps no connection that breaks
}

// Connect reaches the daemon at addr. With start set, one is started in the background if none answers, said on notice.
func Connect(ctx context.Context, addr string, start bool, notice io.Writer) (*Daemon, error) {
	at, err := address.Parse(addr)
	if err != nil {
		return nil, err
	}
	d := &Daemon{at: at}
	if start && at.Network == "unix" {
		d.first, err = ondemand.Connect(ctx, at.Target, notice)
	} else {
		d.first, err = d.open(ctx)
	}
	if err != nil {
		return nil, err
	}
	d.conn, err = grpc.NewClient("passthrough:///slipwayd",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return d.Dial(ctx) }),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithInitialWindowSize(1<<20), grpc.WithInitialConnWindowSize(4<<20),
		grpc.WithUnaryInterceptor(grpcerrors.UnaryClientInterceptor),
		grpc.WithStreamInterceptor(grpcerrors.StreamClientInterceptor),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to the daemon at %s: %w", at.Target, err)
	}
	d.Control, d.Content = controlapi.NewControlClient(d.conn), contentapi.NewContentClient(d.conn)
	return d, nil
}

// Dial opens one more connection to the daemon. It lasts when what is below it breaks for a while, if the daemon can do its part.
func (d *Daemon) Dial(ctx context.Context) (net.Conn, error) {
	d.mu.Lock()
	first, plain := d.first, d.plain
	d.first = nil
	d.mu.Unlock()
	switch {
	case plain && first != nil:
		return first, nil
	case plain:
		return d.open(ctx)
	}
	conn, err := resume.Dial(ctx, first, d.open)
	if errors.Is(err, resume.ErrUnsupported) {
		d.mu.Lock()
		d.plain = true
		d.mu.Unlock()
		return d.open(ctx)
	}
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// open makes a connection.
func (d *Daemon) open(ctx context.Context) (net.Conn, error) {
	// What is noticed of a path that died is noticed above.
	dialer := net.Dialer{Timeout: dialTime}
	conn, err := dialer.DialContext(ctx, d.at.Network, d.at.Target)
	if err == nil && d.at.TLS != nil {
		secured := tls.Client(conn, d.at.TLS)
		if err = secured.HandshakeContext(ctx); err != nil {
			err = errors.Join(err, conn.Close())
		}
		conn = secured
	}
	if err != nil {
		return nil, fmt.Errorf("connect to the daemon: %w", err)
	}
	return conn, nil
}

// Close ends the connection; those that Dial returned are their owners'.
func (d *Daemon) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var firstErr error
	if d.first != nil {
		firstErr = d.first.Close()
		d.first = nil
	}
	return errors.Join(firstErr, d.conn.Close())
}
