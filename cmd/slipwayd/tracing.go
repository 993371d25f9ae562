package main

import (
	"context"
	"fmt"
	"os"

	"github.com/opentracing/opentracing-go"
	"github.com/slipwaybuild/slipway/cmd/internal/version"
	"github.com/slipwaybuild/slipway/daemon/traces"
	"github.com/slipwaybuild/slipway/session/tracing/otelbridge"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// tracing is how spans are made, and where they go.
type tracing struct {
	tracer   opentracing.Tracer
	recorder *traces.Recorder        // of which builds record their own
	sinks    []sdktrace.SpanExporter // the recorder, and the collector if there is one
	end      func(context.Context) error
}

// newTracing makes the tracer of all calls: its spans go to the records of builds, and to the collector that OpenTelemetry's environment
// variables name, if they do.
func newTracing(ctx context.Context) (*tracing, error) {
	t := &tracing{recorder: traces.NewRecorder()}
	t.sinks = []sdktrace.SpanExporter{t.recorder}
	opts := []sdktrace.TracerProviderOption{
		sdktrace.WithSyncer(t.recorder),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "slipwayd"), attribute.String("service.version", version.String()),
		)),
	}
	if os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != "" {
		exporter, err := otlptracegrpc.New(ctx)
		if err != nil {
			return nil, fmt.Errorf("connect to the trace collector: %w", err)
		}
		opts = append(opts, sdktrace.WithBatcher(exporter))
		t.sinks = append(t.sinks, exporter)
	}
	provider := sdktrace.NewTracerProvider(opts...)
	t.tracer, t.end = otelbridge.New(provider), provider.Shutdown
	return t, nil
}
