package secrets

import (
	"context"
	"errors"
	"fmt"

	pb "github.com/moby/buildkit/session/secrets"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/slipwaybuild/slipway/session"
)

// ErrNotFound says that none of the sessions has the secret.
var ErrNotFound = errors.New("not found")

// Get returns the value of the secret from the first session that has it. The error wraps ErrNotFound when all that could be asked
// do not, session.ErrNoSession when none could be asked. The group's witnesses have heard of the value. The caller owns it and should keep
// it no longer than needed.
func Get(ctx context.Context, g *session.Group, id string) ([]byte, error) {
	var value []byte
	asked := false // whether a session answered that it has no such secret
	err := g.Any(ctx, func(ctx context.Context, c session.Caller) error {
		resp, err := pb.NewSecretsClient(c.Conn()).GetSecret(ctx, &pb.GetSecretRequest{ID: id})
		switch status.Code(err) {
		case codes.OK:
			value = resp.GetData()
			return nil
		case codes.NotFound, codes.Unimplemented:
			asked = true
			return fmt.Errorf("%w: %w", session.ErrNotSupported, err) // another client may have it
		default:
			return err
		}
	})
	switch {
	case err == nil:
		g.Learned(id, value)
		return value, nil
	case asked && errors.Is(err, session.ErrNoSession):
		return nil, fmt.Errorf("secret %s: %w", id, ErrNotFound)
	}
	return nil, fmt.Errorf("secret %s: %w", id, err)
}
