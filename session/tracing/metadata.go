package tracing

import (
	"context"
	"strings"

	"github.com/opentracing/opentracing-go"
	"github.com/opentracing/opentracing-go/ext"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// carrier is gRPC metadata seen as an opentracing carrier.
type carrier metadata.MD

var (
	_ opentracing.TextMapReader = carrier(nil)
	_ opentracing.TextMapWriter = carrier(nil)
)

// Set writes one item. A key is lower case in gRPC; a tracer may name it otherwise.
func (c carrier) Set(key, value string) {
	c[strings.ToLower(key)] = []string{value}
}

// ForeachKey hands out every item, binary ones too: a tracer looks only at the keys it knows.
func (c carrier) ForeachKey(f func(key, value string) error) error {
	for k, values := range c {
		for _, v := range values {
			if err := f(k, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// startClient starts the span of an outgoing call and returns the context that carries it to the peer.
func startClient(ctx context.Context, tracer opentracing.Tracer, method string) (context.Context, opentracing.Span) {
	var opts []opentracing.StartSpanOption
	if parent := opentracing.SpanFromContext(ctx); parent != nil {
		opts = append(opts, opentracing.ChildOf(parent.Context()))
	}
	span := tracer.StartSpan(name(method), append(opts, ext.SpanKindRPCClient, component)...)
	md, ok := metadata.FromOutgoingContext(ctx)
	if !ok {
		md = metadata.MD{} // FromOutgoingContext returned a copy otherwise, so that writing to md is ours alone
	}
	// A span that cannot be written (an unsampled one of some tracers) must not fail the call that it describes.
	_ = tracer.Inject(span.Context(), opentracing.HTTPHeaders, carrier(md))
	ctx = opentracing.ContextWithSpan(ctx, span)
	return metadata.NewOutgoingContext(ctx, md), span
}

// startServer starts the span of an incoming call, as a child of the caller's if it sent one.
func startServer(ctx context.Context, tracer opentracing.Tracer, method string) (context.Context, opentracing.Span) {
	opts := []opentracing.StartSpanOption{component}
	md, _ := metadata.FromIncomingContext(ctx)
	parent, err := tracer.Extract(opentracing.HTTPHeaders, carrier(md))
	if err == nil {
		opts = append(opts, ext.RPCServerOption(parent))
	} else { // no or foreign trace context: a trace of its own
		opts = append(opts, ext.SpanKindRPCServer)
	}
	span := tracer.StartSpan(name(method), opts...)
	return opentracing.ContextWithSpan(ctx, span), span
}

// finish ends the span with the outcome of the call. The error's text is not recorded: it may quote what the user typed.
func finish(span opentracing.Span, err error) {
	if err != nil {
		ext.Error.Set(span, true)
	}
	span.SetTag("grpc.code", status.Code(err).String())
	span.Finish()
}

// component tags every span of this package.
var component = opentracing.Tag{Key: string(ext.Component), Value: "grpc"}

func name(method string) string { return strings.TrimPrefix(method, "/") }

func untraced(method string) bool { return strings.HasPrefix(method, "/grpc.health.v1.Health/") }
