// Package remote is a connection to the daemon: BuildKit's Control service, and sessions beside it.
package remote

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/slipwaybuild/slipway/cmd/slipway/internal/address"
	"github.com/slipwaybuild/slipway/cmd/slipway/internal/ondemand"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// maxMessage is the largest gRPC message either way, in bytes.
const maxMessage = 16 << 20

// Daemon is a connection to a daemon.
type Daemon struct {
	Control controlapi.ControlClient

	socket string
	conn   *grpc.ClientConn
}

// Connect reaches the daemon at addr. With start set, one is started in the background if none answers, said on notice.
func Connect(ctx context.Context, addr string, start bool, notice io.Writer) (*Daemon, error) {
	socket, err := address.Path(addr)
	if err != nil {
		return nil, err
	}
	d := &Daemon{socket: socket}
	var first net.Conn
	if start {
		first, err = ondemand.Connect(ctx, socket, notice)
	} else {
		first, err = d.Dial(ctx)
	}
	if err != nil {
		return nil, err
	}
	var once sync.Mutex
	d.conn, err = grpc.NewClient("passthrough:///slipwayd",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			once.Lock()
			defer once.Unlock()
			if c := first; c != nil {
				first = nil
				return c, nil
			}
			return d.Dial(ctx)
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithInitialWindowSize(1<<20), grpc.WithInitialConnWindowSize(4<<20),
		grpc.WithUnaryInterceptor(grpcerrors.UnaryClientInterceptor),
		grpc.WithStreamInterceptor(grpcerrors.StreamClientInterceptor),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to the daemon at %s: %w", socket, err)
	}
	d.Control = controlapi.NewControlClient(d.conn)
	return d, nil
}

// Dial opens one more connection to the daemon.
func (d *Daemon) Dial(ctx context.Context) (net.Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", d.socket)
	if err != nil {
		return nil, fmt.Errorf("connect to the daemon: %w", err)
	}
	return conn, nil
}

// Close ends the connection.
func (d *Daemon) Close() error { return d.conn.Close() }
