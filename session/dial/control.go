package dial

import (
	"context"
	"fmt"
	"net"
	"strings"

	controlapi "github.com/moby/buildkit/api/services/control"
	"google.golang.org/grpc/metadata"

	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/internal/streamconn"
)

var codec = streamconn.Codec[controlapi.BytesMessage]{
	Wrap:   func(b []byte) *controlapi.BytesMessage { return &controlapi.BytesMessage{Data: b} },
	Unwrap: func(m *controlapi.BytesMessage) []byte { return m.GetData() },
}

// Control returns a dialer that opens a session on a stream of BuildKit's Control service. The stream lives on the connection of
// api, which must outlive the session, and ends with the context that the dialer gets.
func Control(api controlapi.ControlClient) session.Dialer {
	return func(ctx context.Context, _ string, meta map[string][]string) (net.Conn, error) {
		md := metadata.MD{}
		for k, v := range meta {
			md[strings.ToLower(k)] = v
		}
		ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(ctx, md))
		stream, err := api.Session(ctx)
		if err != nil {
			cancel()
			return nil, fmt.Errorf("open a session stream: %w", err)
		}
		// CloseSend fails only on a stream that is over already.
		return streamconn.New(stream, codec, func() { _ = stream.CloseSend() }, cancel), nil
	}
}

// ServeControl is the handler of Control.Session: it gives the stream to the manager as a connection, and returns when the
// session is over. The error is what session.Manager.HandleConn returned.
func ServeControl(stream controlapi.Control_SessionServer, m *session.Manager) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	return m.HandleConn(stream.Context(), streamconn.New(stream, codec, nil, nil), md)
}
