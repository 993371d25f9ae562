package traces

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/progress"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// scope is the instrumentation scope of the spans made from a story.
const scope = "github.com/slipwaybuild/slipway/steps"

// WriteTrace stops the recording and writes its spans, and one for each step that story tells of, as BuildKit's records hold
// them: JSON objects in OpenTelemetry's stub form, one after the other. It returns how many; writing none is no error.
func (rec *Recording) WriteTrace(w io.Writer, story *progress.Reader) (int, error) {
	spans, dropped := rec.Stop()
	steps, err := rec.steps(story)
	if err != nil {
		return 0, err
	}
	spans = append(spans, steps...)
	if dropped > 0 && len(spans) > 0 {
		s := &spans[0]
		s.Attributes = append(s.Attributes, attribute.Int("slipway.dropped_spans", dropped))
	}
	n := 0
	for _, s := range spans {
		b, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			continue // a client's span with a number or a time that JSON does not have
		}
		if _, err := w.Write(append(b, '\n')); err != nil {
			return n, fmt.Errorf("write span %q: %w", s.Name, err)
		}
		n++
	}
	return n, nil
}

// steps makes a span of each step that ran, below the call that asked for the build. Steps are told of in the journal alone, so
// that work shared by several builds is in the trace of each.
func (rec *Recording) steps(story *progress.Reader) ([]tracetest.SpanStub, error) {
	if story == nil {
		return nil, nil
	}
	last := map[digest.Digest]*progress.Vertex{}
	var order []digest.Digest
	for {
		ev, err := story.Next(context.Background()) // the story is at its end, so nothing is waited for
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		v := ev.Vertex
		if v == nil || v.Started == nil {
			continue
		}
		if last[v.ID] == nil {
			order = append(order, v.ID)
		}
		last[v.ID] = v
	}
	var spans []tracetest.SpanStub
	for _, id := range order {
		if len(spans) < maxSpans {
			spans = append(spans, rec.step(last[id]))
		}
	}
	return spans, nil
}

func (rec *Recording) step(v *progress.Vertex) tracetest.SpanStub {
	s := tracetest.SpanStub{
		Name:        v.Name,
		SpanContext: trace.NewSpanContext(trace.SpanContextConfig{TraceID: rec.at.TraceID(), SpanID: newSpanID(), TraceFlags: rec.at.TraceFlags()}),
		Parent:      rec.at,
		SpanKind:    trace.SpanKindInternal,
		StartTime:   *v.Started,
		EndTime:     *v.Started,
		Attributes: []attribute.KeyValue{
			attribute.String("vertex", v.ID.String()), attribute.Bool("cached", v.Cached),
		},
		Resource:             resource.NewSchemaless(attribute.String("service.name", "slipwayd")),
		InstrumentationScope: instrumentation.Scope{Name: scope},
	}
	if v.Completed != nil {
		s.EndTime = laterOf(*v.Started, *v.Completed)
	}
	if v.Error != "" {
		s.Status.Code, s.Status.Description = codes.Error, v.Error
	}
	return s
}

func laterOf(a, b time.Time) time.Time {
	if b.Before(a) {
		return a
	}
	return b
}

// newSpanID need not be secret, only different from others of the trace.
func newSpanID() (id trace.SpanID) {
	for !id.IsValid() {
		n := rand.Uint64()
		for i := range id {
			id[i] = byte(n >> (8 * i))
		}
	}
	return id
}
