package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	pb "github.com/moby/buildkit/session/sshforward"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/internal/streamconn"
)

// ErrNotForwarded says that none of the sessions forwards an agent under the id.
var ErrNotForwarded = errors.New("no SSH key forwarded from the client")

// notForwardedError is ErrNotForwarded with the id, in the words that BuildKit uses.
type notForwardedError struct {
	id    string
	asked error // what the clients said
}

func (e *notForwardedError) Error() string {
	return fmt.Sprintf("no SSH key %q forwarded from the client: %v", e.id, e.asked)
}

func (e *notForwardedError) Is(target error) bool { return target == ErrNotForwarded }

// Check tells whether a session forwards the id, and its agent answers. An empty id is DefaultID. The error wraps ErrNotForwarded when
// all that could be asked do not forward it, session.ErrNoSession when none could be asked.
func Check(ctx context.Context, g *session.Group, id string) error {
	return anyWith(ctx, g, id, func(context.Context, session.Caller) error { return nil })
}

// Dial opens a connection to the agent forwarded under the id. It lasts until it is closed, ctx ends, or the client leaves. It can
// be closed in one direction (CloseWrite). Errors are as Check's. The caller closes the connection.
func Dial(ctx context.Context, g *session.Group, id string) (net.Conn, error) {
	var conn net.Conn
	err := anyWith(ctx, g, id, func(ctx context.Context, c session.Caller) error {
		ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, keyID, orDefault(id)))
		stream, err := pb.NewSSHClient(c.Conn()).ForwardAgent(ctx)
		if err != nil {
			cancel()
			return err
		}
		// CloseSend fails only on a stream that is over already.
		conn = streamconn.New(stream, codec, func() { _ = stream.CloseSend() }, cancel)
		return nil
	})
	return conn, err
}

// anyWith calls f with the first session that forwards the id.
func anyWith(ctx context.Context, g *session.Group, id string, f func(context.Context, session.Caller) error) error {
	id = orDefault(id)
	asked := false
	err := g.Any(ctx, func(ctx context.Context, c session.Caller) error {
		_, err := pb.NewSSHClient(c.Conn()).CheckAgent(ctx, &pb.CheckAgentRequest{ID: id})
		switch {
		case err == nil:
			return f(ctx, c)
		case absent(err):
			asked = true
			return fmt.Errorf("%w: %w", session.ErrNotSupported, err)
		}
		return err
	})
	switch {
	case err == nil:
		return nil
	case asked && errors.Is(err, session.ErrNoSession):
		return &notForwardedError{id: id, asked: err}
	}
	return fmt.Errorf("ssh agent %q: %w", id, err)
}

// absent recognises a client that does not forward the id; BuildKit's has no code for it.
func absent(err error) bool {
	switch status.Code(err) {
	case codes.NotFound, codes.Unimplemented:
		return true
	case codes.Unknown:
		return strings.HasPrefix(status.Convert(err).Message(), "unset ssh forward key")
	default:
		return false
	}
}

func orDefault(id string) string {
	if id == "" {
		return DefaultID
	}
	return id
}
