package tracing_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/moby/buildkit/session/secrets"
	"github.com/moby/buildkit/session/upload"
	"github.com/opentracing/opentracing-go"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/sessiontest"
	"github.com/slipwaybuild/slipway/session/tracing/otelbridge"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type services struct{ t *testing.T }

func (s services) Register(srv *grpc.Server) {
	secrets.RegisterSecretsServer(srv, s)
	upload.RegisterUploadServer(srv, s)
}

func (s services) GetSecret(ctx context.Context, _ *secrets.GetSecretRequest) (*secrets.GetSecretResponse, error) {
	if opentracing.SpanFromContext(ctx) == nil {
		s.t.Error("the handler has no span")
	}
	return nil, status.Error(codes.NotFound, "a secret text")
}

func (s services) Pull(stream upload.Upload_PullServer) error {
	if opentracing.SpanFromContext(stream.Context()) == nil {
		s.t.Error("the handler of a stream has no span")
	}
	return stream.Send(&upload.BytesMessage{Data: []byte("x")})
}

// TestSpansEndInOpenTelemetry: spans of both ends are exported as one trace under the span of whoever calls.
func TestSpansEndInOpenTelemetry(t *testing.T) {
	exporter := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	tracer := otelbridge.New(provider)

	m := session.NewManager(session.ManagerOptions{Tracer: tracer})
	dialer := sessiontest.HTTP(t, m)
	s := session.New(session.Options{Tracer: tracer})
	s.Allow(services{t})
	ran := make(chan error, 1)
	go func() { ran <- s.Run(context.WithoutCancel(t.Context()), dialer) }()
	c, err := m.Get(t.Context(), s.ID())
	if err != nil {
		t.Fatal(err)
	}

	root := tracer.StartSpan("build")
	ctx := opentracing.ContextWithSpan(t.Context(), root)
	if _, err := secrets.NewSecretsClient(c.Conn()).GetSecret(ctx, &secrets.GetSecretRequest{}); status.Code(err) != codes.NotFound {
		t.Errorf("unary call: %v", err)
	}
	stream, err := upload.NewUploadClient(c.Conn()).Pull(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = stream.Recv()
	}
	if !errors.Is(err, io.EOF) {
		t.Errorf("stream: %v", err)
	}
	given, cancel := context.WithCancel(ctx)
	if _, err := upload.NewUploadClient(c.Conn()).Pull(given); err != nil {
		t.Fatal(err)
	}
	cancel() // and never receives
	if _, err := healthpb.NewHealthClient(c.Conn()).Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
		t.Error(err)
	}
	root.Finish()
	if err := errors.Join(s.Close(), <-ran, m.Close()); err != nil {
		t.Fatal(err)
	}
	if err := provider.ForceFlush(t.Context()); err != nil {
		t.Fatal(err)
	}

	spans := exporter.GetSpans()
	byID := map[string]tracetest.SpanStub{}
	count := map[string]int{}
	for _, sp := range spans {
		byID[sp.SpanContext.SpanID().String()] = sp
	}
	for _, sp := range spans {
		if sp.SpanContext.TraceID() != spans[0].SpanContext.TraceID() {
			t.Errorf("span %q is in another trace", sp.Name)
		}
		count[byID[sp.Parent.SpanID().String()].Name+" > "+sp.Name]++
	}
	const get, pull = "moby.buildkit.secrets.v1.Secrets/GetSecret", "moby.upload.v1.Upload/Pull"
	want := map[string]int{" > build": 1, "build > " + get: 1, get + " > " + get: 1, "build > " + pull: 2}
	for edge, n := range want {
		if count[edge] != n {
			t.Errorf("%d spans %q, want %d", count[edge], edge, n)
		}
	}
	if n := count[pull+" > "+pull]; n < 1 || n > 2 { // the stream that was given up may not have reached the client
		t.Errorf("%d server spans of streams", n)
	}
	if n := count["build > grpc.health.v1.Health/Check"]; n != 0 {
		t.Error("a health check has a span")
	}
}
