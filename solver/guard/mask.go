package guard

import "bytes"

// Mask is what stands in the place of a value.
const Mask = "***"

// Mask returns data with the values in it masked, short ones excepted. It is data itself if there are none.
func (m *Matcher) Mask(data []byte) []byte {
	if m == nil {
		return data
	}
	return replace(data, m.spans(data, false))
}

// MaskString is [Matcher.Mask] for a string.
func (m *Matcher) MaskString(s string) string {
	if m == nil || len(s) < MinFind {
		return s
	}
	b := []byte(s)
	spans := m.spans(b, false)
	if len(spans) == 0 {
		return s
	}
	return string(replace(b, spans))
}

func replace(data []byte, spans []span) []byte {
	if len(spans) == 0 {
		return data
	}
	var out bytes.Buffer
	at := 0
	for _, s := range spans {
		out.Write(data[at:s.start])
		out.WriteString(Mask)
		at = s.end
	}
	out.Write(data[at:])
	return out.Bytes()
}

// MaskError returns an error whose text is masked and that is otherwise err, for [errors.Is] and [errors.As].
func (m *Matcher) MaskError(err error) error {
	if err == nil || m == nil {
		return err
	}
	text := err.Error()
	if masked := m.MaskString(text); masked != text {
		return &maskedError{text: masked, err: err}
	}
	return err
}

type maskedError struct {
	text string
	err  error
}

func (e *maskedError) Error() string { return e.text }
func (e *maskedError) Unwrap() error { return e.err }
