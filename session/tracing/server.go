package tracing

import (
	"context"

	"github.com/opentracing/opentracing-go"
	"google.golang.org/grpc"
)

// UnaryServer returns an interceptor that gives each handler a span.
func UnaryServer(tracer opentracing.Tracer) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
		if untraced(info.FullMethod) {
			return handler(ctx, req)
		}
		ctx, span := startServer(ctx, tracer, info.FullMethod)
		defer func() { finish(span, err) }()
		return handler(ctx, req)
	}
}

// StreamServer returns an interceptor that gives each stream's handler a span, from its start to its return.
func StreamServer(tracer opentracing.Tracer) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
		if untraced(info.FullMethod) {
			return handler(srv, stream)
		}
		ctx, span := startServer(stream.Context(), tracer, info.FullMethod)
		defer func() { finish(span, err) }()
		return handler(srv, &serverStream{ServerStream: stream, ctx: ctx})
	}
}

type serverStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *serverStream) Context() context.Context { return s.ctx }
