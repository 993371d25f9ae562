package interceptors

import (
	"context"
	"log/slog"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/logging"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// UnaryServerLogging returns an interceptor that writes one record per finished call: method, duration, code and error, and no
// payload, because payloads hold files, tokens and secrets.
func UnaryServerLogging(log *slog.Logger) grpc.UnaryServerInterceptor {
	return logging.UnaryServerInterceptor(adapt(log), logOptions()...)
}

// StreamServerLogging is UnaryServerLogging for streams.
func StreamServerLogging(log *slog.Logger) grpc.StreamServerInterceptor {
	return logging.StreamServerInterceptor(adapt(log), logOptions()...)
}

// UnaryClientLogging is UnaryServerLogging for the calling side.
func UnaryClientLogging(log *slog.Logger) grpc.UnaryClientInterceptor {
	return logging.UnaryClientInterceptor(adapt(log), logOptions()...)
}

// StreamClientLogging is UnaryServerLogging for the calling side of streams.
func StreamClientLogging(log *slog.Logger) grpc.StreamClientInterceptor {
	return logging.StreamClientInterceptor(adapt(log), logOptions()...)
}

// adapt joins the middleware's logger to slog.
func adapt(log *slog.Logger) logging.Logger {
	return logging.LoggerFunc(func(ctx context.Context, level logging.Level, msg string, fields ...any) {
		log.Log(ctx, slog.Level(level), msg, fields...)
	})
}

func logOptions() []logging.Option {
	// Everything is at debug level: that a call failed is told to the user by whoever needed the call.
	level := func(codes.Code) logging.Level { return logging.LevelDebug }
	return []logging.Option{logging.WithLogOnEvents(logging.FinishCall), logging.WithLevels(level)}
}
