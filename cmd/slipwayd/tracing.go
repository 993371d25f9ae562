package main

import (
	"context"
	"fmt"
	"os"

	"github.com/opentracing/opentracing-go"
	"github.com/slipwaybuild/slipway/cmd/internal/version"
	"github.com/slipwaybuild/slipway/session/tracing/otelbridge"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// newTracer makes the tracer of all calls: its spans go to the collector that OpenTelemetry's environment variables name. Without
// one there is no tracer, and end does nothing.
func newTracer(ctx context.Context) (tracer opentracing.Tracer, end func(context.Context) error, err error) {
	if os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" {
		return nil, func(context.Context) error { return nil }, nil
	}
	exporter, err := otlptracegrpc.New(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to the trace collector: %w", err)
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "slipwayd"), attribute.String("service.version", version.String()),
		)),
	)
	return otelbridge.New(provider), provider.Shutdown, nil
}
