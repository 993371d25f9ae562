package control

import (
	"context"
	"errors"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/slipwaybuild/slipway/daemon/history"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ListenBuildHistory tells of builds that run and of those that ended, and of what becomes of them.
func (s *Service) ListenBuildHistory(r *controlapi.BuildHistoryRequest, stream controlapi.Control_ListenBuildHistoryServer) error {
	if err := sendTime(stream); err != nil {
		return err
	}
	return withCode(s.engine.History().Listen(stream.Context(), r, stream.Send))
}

// UpdateBuildHistory deletes, finalizes, pins or unpins the record of a build that ended.
func (s *Service) UpdateBuildHistory(ctx context.Context, r *controlapi.UpdateBuildHistoryRequest) (*controlapi.UpdateBuildHistoryResponse, error) {
	if r.Ref == "" {
		return nil, status.Error(codes.InvalidArgument, "update build history: no ref")
	}
	var err error
	switch h := s.engine.History(); {
	case r.Delete:
		err = h.Delete(r.Ref)
	case r.Finalize:
		err = h.Finalize(ctx, r.Ref)
	default:
		err = h.Pin(r.Ref, r.Pinned)
	}
	if errors.Is(err, history.ErrRunning) {
		return nil, grpcerrors.WrapCode(err, codes.FailedPrecondition)
	}
	if err != nil {
		return nil, withCode(err)
	}
	return &controlapi.UpdateBuildHistoryResponse{}, nil
}
