package interceptors

import (
	"context"
	"log/slog"
	"runtime/debug"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// UnaryServerRecovery returns an interceptor that turns a handler's panic into codes.Internal for that call alone. The stack goes
// to the log and not to the peer.
func UnaryServerRecovery(log *slog.Logger) grpc.UnaryServerInterceptor {
	inner := func(method string) grpc.UnaryServerInterceptor {
		return recovery.UnaryServerInterceptor(recovery.WithRecoveryHandlerContext(onPanic(log, method)))
	}
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		return inner(info.FullMethod)(ctx, req, info, handler)
	}
}

// StreamServerRecovery is UnaryServerRecovery for streams. It guards the handler's own goroutine; one that a handler starts must
// guard itself.
func StreamServerRecovery(log *slog.Logger) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		guard := recovery.StreamServerInterceptor(recovery.WithRecoveryHandlerContext(onPanic(log, info.FullMethod)))
		return guard(srv, stream, info, handler)
	}
}

func onPanic(log *slog.Logger, method string) recovery.RecoveryHandlerFuncContext {
	return func(ctx context.Context, p any) error {
		log.LogAttrs(ctx, slog.LevelError, "panic in a service", slog.String("method", method), slog.Any("panic", p),
			slog.String("stack", string(debug.Stack())))
		return status.Errorf(codes.Internal, "%s: internal error: the service panicked", method)
	}
}
