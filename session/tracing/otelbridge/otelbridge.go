// Package otelbridge lets opentracing spans end in OpenTelemetry.
//
// It is apart from package tracing because a client that exports no traces should not link OpenTelemetry's bridge.
package otelbridge

import (
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
