package secrets

import (
	"context"
	"errors"

	pb "github.com/moby/buildkit/session/secrets"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/slipwaybuild/slipway/session"
)

// MaxSize bounds a secret's value, in bytes.
const MaxSize = 500 << 10

// Store finds secrets. It may be asked concurrently, and for any id that a build cares to name.
type Store interface {
	// Secret returns the value, or an error that wraps ErrNotFound.
	Secret(ctx context.Context, id string) ([]byte, error)
}

// Map is a Store of values in memory.
type Map map[string][]byte

// Secret implements Store.
func (m Map) Secret(_ context.Context, id string) ([]byte, error) {
	if v, ok := m[id]; ok {
		return v, nil
	}
	return nil, ErrNotFound
}

// New returns the service that hands out the secrets of these sources; see NewStore.
func New(sources []Source) (session.Attachable, error) {
	store, err := NewStore(sources)
	if err != nil {
		return nil, err
	}
	return FromStore(store), nil
}

// FromStore returns the service that hands out the store's secrets.
func FromStore(store Store) session.Attachable { return &service{store: store} }

type service struct {
	pb.UnimplementedSecretsServer
	store Store
}

func (s *service) Register(srv *grpc.Server) { pb.RegisterSecretsServer(srv, s) }

func (s *service) GetSecret(ctx context.Context, req *pb.GetSecretRequest) (*pb.GetSecretResponse, error) {
	value, err := s.store.Secret(ctx, req.GetID())
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, status.Errorf(codes.NotFound, "secret %s: not found", req.GetID())
	case err != nil:
		return nil, status.Errorf(codes.Unknown, "secret %s: %v", req.GetID(), err)
	case len(value) > MaxSize:
		return nil, status.Errorf(codes.InvalidArgument, "secret %s: invalid secret size %d, at most %d bytes are allowed", req.GetID(), len(value), MaxSize)
	}
	return &pb.GetSecretResponse{Data: value}, nil
}
