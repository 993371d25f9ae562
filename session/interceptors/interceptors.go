// Package interceptors assembles what surrounds every gRPC call of ours, on a session and on the daemon's own server.
//
// From the outside in: a span, a log record, recovery, then the handler. Recovery is innermost, so that a panic is an ordinary
// error (codes.Internal) for what stands around it. Message sizes are bounded in both directions.
package interceptors

import (
	"log/slog"

	"github.com/opentracing/opentracing-go"
	"google.golang.org/grpc"

	"github.com/slipwaybuild/slipway/session/tracing"
)

// MaxMessage bounds one gRPC message in either direction, in bytes. It is what Docker's and BuildKit's ends use; gRPC's own
// limit of 4 MiB is too small for a big build definition.
const MaxMessage = 16 << 20

// MaxHeaders bounds the header list of one call, in bytes.
const MaxHeaders = 1 << 20

// Options says who hears about calls. The zero value: nobody.
type Options struct {
	// Logger gets a record per call at debug level, and one at error level per panic. nil is silence.
	Logger *slog.Logger
	// Tracer makes a span per call. nil makes none.
	Tracer opentracing.Tracer
}

func (o Options) logger() *slog.Logger {
	if o.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Logger
}

// Server returns the options of a gRPC server whose services are guarded, logged, traced and bounded.
func Server(o Options) []grpc.ServerOption {
	log := o.logger()
	unary := []grpc.UnaryServerInterceptor{UnaryServerLogging(log), UnaryServerRecovery(log)}
	stream := []grpc.StreamServerInterceptor{StreamServerLogging(log), StreamServerRecovery(log)}
	if o.Tracer != nil {
		unary = append([]grpc.UnaryServerInterceptor{tracing.UnaryServer(o.Tracer)}, unary...)
		stream = append([]grpc.StreamServerInterceptor{tracing.StreamServer(o.Tracer)}, stream...)
	}
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(unary...),
		grpc.ChainStreamInterceptor(stream...),
		grpc.MaxRecvMsgSize(MaxMessage),
		grpc.MaxSendMsgSize(MaxMessage),
		grpc.MaxHeaderListSize(MaxHeaders),
	}
}

// Client returns the options of a gRPC connection whose calls are logged, traced and bounded.
func Client(o Options) []grpc.DialOption {
	log := o.logger()
	unary := []grpc.UnaryClientInterceptor{UnaryClientLogging(log)}
	stream := []grpc.StreamClientInterceptor{StreamClientLogging(log)}
	if o.Tracer != nil {
		unary = append([]grpc.UnaryClientInterceptor{tracing.UnaryClient(o.Tracer)}, unary...)
		stream = append([]grpc.StreamClientInterceptor{tracing.StreamClient(o.Tracer)}, stream...)
	}
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(unary...),
		grpc.WithChainStreamInterceptor(stream...),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessage), grpc.MaxCallSendMsgSize(MaxMessage)),
		grpc.WithMaxHeaderListSize(MaxHeaders),
	}
}
