package daemon

import (
	"context"
	"errors"

	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/slipwaybuild/slipway/daemon/history"
	"github.com/slipwaybuild/slipway/daemon/sourcepolicy"
	"github.com/slipwaybuild/slipway/solver/executor"
	"github.com/slipwaybuild/slipway/solver/ops"
	"google.golang.org/grpc/codes"
)

// WithCode gives an error of the engine the gRPC code that belongs to it, for callers and for the build's record. nil stays nil.
func WithCode(err error) error {
	var definition *ops.DefinitionError
	var device *ops.DeviceError
	var leak *ops.LeakError
	var feature *errdefs.UnsupportedCompatibilityFeatureError
	var spec *executor.InvalidSpecError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return grpcerrors.WrapCode(err, codes.Canceled)
	case errors.Is(err, context.DeadlineExceeded):
		return grpcerrors.WrapCode(err, codes.DeadlineExceeded)
	case errors.Is(err, ErrInvalidRequest), errors.Is(err, history.ErrFilter):
		return grpcerrors.WrapCode(err, codes.InvalidArgument)
	case errors.Is(err, ErrBuildExists):
		return grpcerrors.WrapCode(err, codes.AlreadyExists)
	case errors.Is(err, ErrNoBuild), errors.Is(err, ErrPruned):
		return grpcerrors.WrapCode(err, codes.NotFound)
	case errors.Is(err, history.ErrBehind):
		return grpcerrors.WrapCode(err, codes.ResourceExhausted)
	case errors.Is(err, sourcepolicy.ErrDenied), errors.As(err, &device), errors.Is(err, ErrForeignBuild), errors.As(err, &leak):
		return grpcerrors.WrapCode(err, codes.PermissionDenied)
	case errors.As(err, &definition), errors.As(err, &spec), errors.As(err, &feature):
		return grpcerrors.WrapCode(err, codes.InvalidArgument)
	}
	// Clients write in front that it is a solve that failed.
	return err
}
