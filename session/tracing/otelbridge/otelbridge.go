// Package otelbridge lets opentracing spans end in OpenTelemetry.
//
// It is apart from package tracing because a client that exports no traces should not link OpenTelemetry's bridge.
package otelbridge

import (
	"context"
	"net/http"

	"github.com/opentracing/opentracing-go"
	bridge "go.opentelemetry.io/otel/bridge/opentracing"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Scope is the instrumentation scope under which bridged spans are exported.
const Scope = "github.com/slipwaybuild/slipway"

// New returns an opentracing.Tracer whose spans are made by provider. Between processes they travel as W3C trace context and
// baggage, which is what BuildKit's clients and daemons send.
func New(provider trace.TracerProvider) opentracing.Tracer {
	b := bridge.NewBridgeTracer()
	b.SetOpenTelemetryTracer(provider.Tracer(Scope))
	b.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	return b
}

// SpanContext is where ctx is in its trace, as OpenTelemetry names it; not valid if ctx carries no span of a bridged tracer.
func SpanContext(ctx context.Context) trace.SpanContext {
	span := opentracing.SpanFromContext(ctx)
	if span == nil {
		return trace.SpanContext{}
	}
	// The bridge keeps its types to itself, but what it writes for the next process can be read.
	h := http.Header{}
	if err := span.Tracer().Inject(span.Context(), opentracing.HTTPHeaders, opentracing.HTTPHeadersCarrier(h)); err != nil {
		return trace.SpanContext{}
	}
	return trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), propagation.HeaderCarrier(h)))
}
