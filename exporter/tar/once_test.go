package tar_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/exporter/internal/exportertest"
	"github.com/slipwaybuild/slipway/solver/layers/layerstest"
)

// A client gets one stream, however often the outputs of its build are begun.
func TestStreamIsSentOnce(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	in := exportertest.Input(b.Layer("x", layerstest.Text("a", "1")), "", nil)
	in.Streams = &exporter.Streams{}
	var f exportertest.File
	in.Sessions = b.Client(f.Target(2))
	never := func(int) bool { return false }
	if in.Streams.Any(never) || in.Streams.Begun(2) {
		t.Error("something was sent before anything was")
	}
	if err := run(t.Context(), t, b, nil, in); err != nil {
		t.Fatal(err)
	}
	sent := f.Bytes()
	if !in.Streams.Any(never) || !in.Streams.Begun(2) || in.Streams.Begun(1) {
		t.Error("it is not known what was sent")
	}
	if err := run(t.Context(), t, b, nil, in); !errors.Is(err, exporter.ErrStreamBegun) {
		t.Errorf("the second stream: %v", err)
	}
	if !bytes.Equal(f.Bytes(), sent) {
		t.Errorf("the client has %d bytes, and had %d", len(f.Bytes()), len(sent))
	}
}
