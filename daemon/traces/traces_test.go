package traces

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"path/filepath"
	"testing"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/opentracing/opentracing-go"
	"github.com/slipwaybuild/slipway/session/tracing/otelbridge"
	"github.com/slipwaybuild/slipway/solver/progress"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"math"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// written is what viewers read of a span.
type written struct {
	Name        string
	SpanContext struct{ TraceID, SpanID string }
	Parent      struct{ TraceID, SpanID string }
}

func parse(t *testing.T, b []byte) map[string]written {
	t.Helper()
	spans := map[string]written{}
	for dec := json.NewDecoder(bytes.NewReader(b)); ; {
		var s written
		if err := dec.Decode(&s); err == io.EOF {
			return spans
		} else if err != nil {
			t.Fatal(err)
		}
		spans[s.Name] = s
	}
}

func request(spans ...*tracepb.Span) *collectorpb.ExportTraceServiceRequest {
	return &collectorpb.ExportTraceServiceRequest{ResourceSpans: []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{Spans: spans}}}}}
}

func ids(b byte) []byte { return bytes.Repeat([]byte{b}, 16) }

// TestTraceOfABuild: spans of the daemon, of its client, early and late, and of the steps are one trace.
func TestTraceOfABuild(t *testing.T) {
	r := NewRecorder()
	tracer := otelbridge.New(sdktrace.NewTracerProvider(sdktrace.WithSyncer(r)))
	c := NewCollector(r)
	solve := tracer.StartSpan("solve")
	ctx := opentracing.ContextWithSpan(t.Context(), solve)
	at := otelbridge.SpanContext(ctx)
	if !at.IsValid() {
		t.Fatal("the span has no ids")
	}
	id := at.TraceID()
	send := func(name string, trace []byte, v *commonpb.AnyValue) {
		t.Helper()
		s := &tracepb.Span{Name: name, TraceId: trace, SpanId: trace[:8], Attributes: []*commonpb.KeyValue{{Key: "k", Value: v}}}
		if _, err := c.Export(t.Context(), request(s)); err != nil {
			t.Fatal(err)
		}
	}
	text := &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: "v"}}
	send("early", id[:], text)
	send("foreign", ids(9), text)
	rec := r.Record(at)
	send("late", id[:], text)
	send("unspeakable", id[:], &commonpb.AnyValue{Value: &commonpb.AnyValue_DoubleValue{DoubleValue: math.NaN()}})
	tracer.StartSpan("child", opentracing.ChildOf(solve.Context())).Finish()
	solve.Finish()

	var b bytes.Buffer
	n, err := rec.WriteTrace(&b, storyOf(t))
	if err != nil {
		t.Fatal(err)
	}
	spans := parse(t, b.Bytes())
	if n != len(spans) {
		t.Errorf("it says %d spans and wrote %d", n, len(spans))
	}
	for _, name := range []string{"early", "late", "solve", "child", "RUN make"} {
		if spans[name].SpanContext.TraceID != id.String() {
			t.Errorf("span %q: %v", name, spans[name])
		}
	}
	if len(spans) != 5 {
		t.Errorf("spans: %v", spans)
	}
	if p := spans["RUN make"].Parent.SpanID; p != at.SpanID().String() {
		t.Errorf("the step's parent is %s", p)
	}
	send("too late", id[:], text)
	if again, _ := rec.Stop(); len(again) != 5 { // as before, the unspeakable one among them
		t.Errorf("%d spans after the end", len(again))
	}
	if len(r.active) != 0 {
		t.Errorf("still active: %v", r.active)
	}
}

func storyOf(t *testing.T) *progress.Reader {
	t.Helper()
	j, err := progress.Create(filepath.Join(t.TempDir(), "j"))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	v := progress.Vertex{ID: digest.FromString("s"), Name: "RUN make", Started: &now}
	done := v
	done.Completed, done.Error = &now, "exit 1"
	j.Append(progress.Event{Vertex: &progress.Vertex{ID: digest.FromString("t"), Name: "never began"}})
	j.Append(progress.Event{Vertex: &v})
	j.Append(progress.Event{Vertex: &done})
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := j.NewReader()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func TestRecorderIsBounded(t *testing.T) {
	r := NewRecorder()
	c := NewCollector(r)
	for range 3 * maxEarly {
		if _, err := c.Export(t.Context(), request(&tracepb.Span{TraceId: ids(1), SpanId: ids(1)[:8]})); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.early) != maxEarly {
		t.Errorf("%d early spans", len(r.early))
	}
	if r.Record(trace.SpanContext{}) != nil || otelbridge.SpanContext(context.Background()).IsValid() {
		t.Error("a trace of nothing is recorded")
	}
}

func TestCollectorRefuses(t *testing.T) {
	c := NewCollector(NewRecorder())
	deep := &commonpb.AnyValue{}
	for range 2 * maxDepth {
		deep = &commonpb.AnyValue{Value: &commonpb.AnyValue_ArrayValue{ArrayValue: &commonpb.ArrayValue{Values: []*commonpb.AnyValue{deep}}}}
	}
	for name, s := range map[string]*tracepb.Span{
		"no ids":         {},
		"short span id":  {TraceId: ids(1), SpanId: []byte{1}},
		"parent":         {TraceId: ids(1), SpanId: ids(1)[:8], ParentSpanId: []byte{1}},
		"long name":      {TraceId: ids(1), SpanId: ids(1)[:8], Name: string(make([]byte, maxName+1))},
		"no value":       {TraceId: ids(1), SpanId: ids(1)[:8], Attributes: []*commonpb.KeyValue{{Key: "k"}}},
		"no event value": {TraceId: ids(1), SpanId: ids(1)[:8], Events: []*tracepb.Span_Event{{Attributes: []*commonpb.KeyValue{{Key: "k"}}}}},
		"deep":           {TraceId: ids(1), SpanId: ids(1)[:8], Attributes: []*commonpb.KeyValue{{Key: "k", Value: deep}}},
		"many":           {TraceId: ids(1), SpanId: ids(1)[:8], Attributes: make([]*commonpb.KeyValue, maxAttrs+1)},
	} {
		if _, err := c.Export(t.Context(), request(s)); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.Export(t.Context(), &collectorpb.ExportTraceServiceRequest{ResourceSpans: []*tracepb.ResourceSpans{nil, {ScopeSpans: []*tracepb.ScopeSpans{nil}}}}); err != nil {
		t.Errorf("nothing: %v", err)
	}
}

func FuzzExport(f *testing.F) {
	whole, err := proto.Marshal(request(&tracepb.Span{
		Name: "n", TraceId: ids(1), SpanId: ids(2)[:8], ParentSpanId: ids(3)[:8], StartTimeUnixNano: math.MaxUint64,
		Attributes: []*commonpb.KeyValue{{Key: "k", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_ArrayValue{}}}},
		Events:     []*tracepb.Span_Event{{Name: "e"}}, Links: []*tracepb.Span_Link{{TraceId: ids(1)}}, Status: &tracepb.Status{Code: 2},
	}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Fuzz(func(t *testing.T, b []byte) {
		r := &collectorpb.ExportTraceServiceRequest{}
		if proto.Unmarshal(b, r) != nil {
			return
		}
		rec := NewRecorder()
		var id trace.TraceID
		for _, rs := range r.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				for _, s := range ss.Spans {
					copy(id[:], s.TraceId)
				}
			}
		}
		recording := rec.Record(trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: trace.SpanID{1}}))
		if _, err := NewCollector(rec).Export(t.Context(), r); err != nil && status.Code(err) != codes.InvalidArgument {
			t.Fatal(err)
		}
		if recording == nil {
			return
		}
		if _, err := recording.WriteTrace(io.Discard, nil); err != nil {
			t.Fatal(err)
		}
	})
}
