package traces

import (
	"context"
	"time"

	"github.com/moby/buildkit/util/tracing/transform"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Collector is OpenTelemetry's TraceService, through which clients hand over their spans of a build.
type Collector struct {
	collectorpb.UnimplementedTraceServiceServer

	sinks []sdktrace.SpanExporter
}

// passTime bounds how long a client waits for a collector further on that does not answer.
const passTime = 5 * time.Second

// NewCollector returns the service; each of sinks gets every span. They stay the caller's.
func NewCollector(sinks ...sdktrace.SpanExporter) *Collector { return &Collector{sinks: sinks} }

// Register puts the service on a server.
func (c *Collector) Register(g *grpc.Server) { collectorpb.RegisterTraceServiceServer(g, c) }

// Export takes spans. What has no valid id is refused, and with it the whole message.
func (c *Collector) Export(ctx context.Context, r *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	if err := check(r); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	spans := transform.Spans(r.GetResourceSpans())
	ctx, cancel := context.WithTimeout(ctx, passTime)
	defer cancel()
	for _, s := range c.sinks {
		if err := s.ExportSpans(ctx, spans); err != nil {
			return nil, status.Errorf(codes.Unavailable, "pass on %d spans: %v", len(spans), err)
		}
	}
	return &collectorpb.ExportTraceServiceResponse{}, nil
}
