package tracing

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/opentracing/opentracing-go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// UnaryClient returns an interceptor that gives each call a span and sends it along.
func UnaryClient(tracer opentracing.Tracer) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) (err error) {
		if untraced(method) {
			return invoker(ctx, method, req, reply, cc, opts...)
		}
		ctx, span := startClient(ctx, tracer, method)
		defer func() { finish(span, err) }()
		return invoker(ctx, method, req, reply, cc, opts...)
	}
}

// StreamClient returns an interceptor that gives each stream a span. It ends with the stream: when receiving ended, or the
// stream's context did.
func StreamClient(tracer opentracing.Tracer) grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		if untraced(method) {
			return streamer(ctx, desc, cc, method, opts...)
		}
		ctx, span := startClient(ctx, tracer, method)
		stream, err := streamer(ctx, desc, cc, method, opts...)
		if err != nil {
			finish(span, err)
			return nil, err
		}
		s := &clientStream{ClientStream: stream, span: span, serverStreams: desc.ServerStreams}
		// A caller that gives up cancels the context and need not receive again. The stream's own context ends with the
		// stream in every case, so nothing is left behind.
		s.stop = context.AfterFunc(stream.Context(), func() {
			s.end(status.FromContextError(context.Cause(stream.Context())).Err())
		})
		return s, nil
	}
}

type clientStream struct {
	grpc.ClientStream
	span          opentracing.Span
	serverStreams bool
	once          sync.Once
	stop          func() bool
}

func (s *clientStream) Header() (metadata.MD, error) {
	md, err := s.ClientStream.Header()
	if err != nil {
		s.end(err)
	}
	return md, err
}

func (s *clientStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	switch {
	case errors.Is(err, io.EOF):
		s.end(nil)
	case err != nil:
		s.end(err)
	case !s.serverStreams: // the only message there is
		s.end(nil)
	}
	return err
}

func (s *clientStream) end(err error) {
	s.once.Do(func() {
		finish(s.span, err)
		if s.stop != nil {
			s.stop()
		}
	})
}
