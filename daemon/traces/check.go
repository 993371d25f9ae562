package traces

import (
	"errors"
	"fmt"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// Limits on what a client hands over, so that what is kept of it and written out again stays small.
const (
	maxName  = 4 << 10
	maxAttrs = 256
	maxDepth = 8
)

// check says what is wrong with spans of a client.
func check(r *collectorpb.ExportTraceServiceRequest) error {
	for _, rs := range r.GetResourceSpans() {
		if err := checkAttrs(rs.GetResource().GetAttributes()); err != nil {
			return fmt.Errorf("resource: %w", err)
		}
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				if len(s.GetTraceId()) != 16 || len(s.GetSpanId()) != 8 {
					return errors.New("a span without trace id or span id")
				}
				if n := len(s.GetParentSpanId()); n != 0 && n != 8 {
					return fmt.Errorf("a parent's span id of %d bytes", n)
				}
				if len(s.GetName()) > maxName {
					return fmt.Errorf("a span's name of %d bytes", len(s.GetName()))
				}
				if err := checkSpanAttrs(s); err != nil {
					return fmt.Errorf("span %q: %w", s.GetName(), err)
				}
			}
		}
	}
	return nil
}

func checkSpanAttrs(s *tracepb.Span) error {
	errs := []error{checkAttrs(s.GetAttributes())}
	for _, e := range s.GetEvents() {
		errs = append(errs, checkAttrs(e.GetAttributes()))
	}
	for _, l := range s.GetLinks() {
		errs = append(errs, checkAttrs(l.GetAttributes()))
	}
	return errors.Join(errs...)
}

func checkAttrs(attrs []*commonpb.KeyValue) error {
	if len(attrs) > maxAttrs {
		return fmt.Errorf("%d attributes", len(attrs))
	}
	for _, a := range attrs {
		if a.GetValue() == nil {
			return fmt.Errorf("attribute %q has no value", a.GetKey())
		}
		if err := checkValue(a.GetValue(), 0); err != nil {
			return fmt.Errorf("attribute %q: %w", a.GetKey(), err)
		}
	}
	return nil
}

func checkValue(v *commonpb.AnyValue, depth int) error {
	if depth > maxDepth {
		return errors.New("nested too deep")
	}
	for _, e := range v.GetArrayValue().GetValues() {
		if err := checkValue(e, depth+1); err != nil {
			return err
		}
	}
	for _, e := range v.GetKvlistValue().GetValues() {
		if err := checkValue(e.GetValue(), depth+1); err != nil {
			return err
		}
	}
	return nil
}
