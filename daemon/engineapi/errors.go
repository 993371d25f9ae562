package engineapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/slipwaybuild/slipway/daemon"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/resume"
	"github.com/slipwaybuild/slipway/solver/ops"
	"github.com/slipwaybuild/slipway/solver/source/registry"
	"google.golang.org/grpc/codes"
)

// statusError is an error made here, with the status it is answered with. Its text is the client's to read and nothing is added.
type statusError struct {
	code int
	err  error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

func withStatus(code int, format string, args ...any) error {
	return &statusError{code: code, err: fmt.Errorf(format, args...)}
}

// invalid is a request that makes no sense, whatever the state of the daemon.
func invalid(format string, args ...any) error {
	return withStatus(http.StatusBadRequest, format, args...)
}

// notFound is something named that is not there.
func notFound(format string, args ...any) error {
	return withStatus(http.StatusNotFound, format, args...)
}

// conflict is a request that the state of things forbids.
func conflict(format string, args ...any) error {
	return withStatus(http.StatusConflict, format, args...)
}

// unserved is something that this daemon does not do.
func unserved(format string, args ...any) error {
	return withStatus(http.StatusNotImplemented, format, args...)
}

// statusOf is the HTTP status for an error by its class: one made here, then the engine's own kinds, then containerd's classes,
// then gRPC codes. What has none is the daemon's fault.
func statusOf(err error) int {
	var own *statusError
	if errors.As(err, &own) {
		return own.code
	}
	if code := statusOfKind(err); code != 0 {
		return code
	}
	if code := statusOfClass(err); code != 0 {
		return code
	}
	return statusOfCode(grpcerrors.Code(err))
}

// statusOfKind knows the engine's errors; 0 for others.
func statusOfKind(err error) int {
	var handshake *session.RequestError
	var path *resume.RequestError
	var definition *ops.DefinitionError
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, daemon.ErrInvalidRequest), errors.As(err, &handshake), errors.As(err, &definition):
		return http.StatusBadRequest
	case errors.Is(err, daemon.ErrBuildExists):
		return http.StatusConflict
	case errors.Is(err, daemon.ErrNoBuild):
		return http.StatusNotFound
	case errors.Is(err, daemon.ErrForeignBuild):
		return http.StatusForbidden
	case errors.Is(err, registry.ErrUnauthorized):
		return http.StatusUnauthorized
	case errors.As(err, &path):
		return path.Status
	case errors.As(err, &tooLarge):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout
	}
	return 0
}

func statusOfClass(err error) int {
	switch {
	case errdefs.IsNotFound(err):
		return http.StatusNotFound
	case errdefs.IsInvalidArgument(err), errdefs.IsOutOfRange(err), errdefs.IsFailedPrecondition(err):
		return http.StatusBadRequest
	case errdefs.IsConflict(err), errdefs.IsAlreadyExists(err):
		return http.StatusConflict
	case errdefs.IsUnauthorized(err):
		return http.StatusUnauthorized
	case errdefs.IsPermissionDenied(err):
		return http.StatusForbidden
	case errdefs.IsNotModified(err):
		return http.StatusNotModified
	case errdefs.IsNotImplemented(err):
		return http.StatusNotImplemented
	case errdefs.IsUnavailable(err):
		return http.StatusServiceUnavailable
	}
	return 0
}

func statusOfCode(code codes.Code) int {
	switch code {
	case codes.InvalidArgument, codes.FailedPrecondition, codes.OutOfRange:
		return http.StatusBadRequest
	case codes.NotFound:
		return http.StatusNotFound
	case codes.AlreadyExists, codes.Aborted:
		return http.StatusConflict
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.Unimplemented:
		return http.StatusNotImplemented
	case codes.Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}
