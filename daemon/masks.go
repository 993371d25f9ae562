package daemon

import (
	"maps"

	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/slipwaybuild/slipway/solver/guard"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// mask returns an error whose text tells none of the values; it is err itself if that does not either. A status within, which is what
// clients are sent, is masked as well.
func mask(m *guard.Matcher, err error) error {
	if err == nil || m == nil {
		return err
	}
	text := err.Error()
	masked := &maskedError{text: m.MaskString(text), err: err}
	st, ok := grpcerrors.AsGRPCStatus(err)
	if !ok || st == nil {
		if masked.text == text {
			return err
		}
		return masked
	}
	own := st.Proto()
	own.Message = m.MaskString(own.Message)
	changed := own.Message != st.Message()
	for _, d := range own.Details {
		before := len(d.Value)
		d.Value = m.Mask(d.Value)
		changed = changed || len(d.Value) != before
	}
	if !changed && masked.text == text {
		return err
	}
	return &maskedStatus{maskedError: masked, st: status.FromProto(own)}
}

// maskedError is another error with a text of its own.
type maskedError struct {
	text string
	err  error
}

func (e *maskedError) Error() string { return e.text }
func (e *maskedError) Unwrap() error { return e.err }

// maskedStatus is a maskedError of something that has a status.
type maskedStatus struct {
	*maskedError
	st *status.Status
}

// GRPCStatus is what clients are sent.
func (e *maskedStatus) GRPCStatus() *status.Status { return e.st }

// maskMessage masks all strings and bytes of a message, in place.
func maskMessage(m *guard.Matcher, msg proto.Message) {
	if m == nil || msg == nil {
		return
	}
	maskFields(m, msg.ProtoReflect())
}

// maskStrings returns a copy of texts without the values.
func maskStrings(m *guard.Matcher, texts map[string]string) map[string]string {
	texts = maps.Clone(texts)
	for k, v := range texts {
		texts[k] = m.MaskString(v)
	}
	return texts
}

func maskFields(m *guard.Matcher, msg protoreflect.Message) {
	msg.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap():
			maskMap(m, fd, v.Map())
		case fd.IsList():
			list := v.List()
			for i := range list.Len() {
				if fd.Message() != nil {
					maskFields(m, list.Get(i).Message())
				} else if own, ok := maskValue(m, fd.Kind(), list.Get(i)); ok {
					list.Set(i, own)
				}
			}
		case fd.Message() != nil:
			maskFields(m, v.Message())
		default:
			if own, ok := maskValue(m, fd.Kind(), v); ok {
				msg.Set(fd, own)
			}
		}
		return true
	})
}

func maskMap(m *guard.Matcher, fd protoreflect.FieldDescriptor, values protoreflect.Map) {
	values.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		if fd.MapValue().Message() != nil {
			maskFields(m, v.Message())
		} else if own, ok := maskValue(m, fd.MapValue().Kind(), v); ok {
			values.Set(k, own)
		}
		return true
	})
}

// maskValue returns what stands for a single value, and whether it is another.
func maskValue(m *guard.Matcher, kind protoreflect.Kind, v protoreflect.Value) (protoreflect.Value, bool) {
	switch kind {
	case protoreflect.StringKind:
		s := m.MaskString(v.String())
		return protoreflect.ValueOfString(s), s != v.String()
	case protoreflect.BytesKind:
		b := m.Mask(v.Bytes())
		return protoreflect.ValueOfBytes(b), len(b) != len(v.Bytes())
	}
	return v, false
}
