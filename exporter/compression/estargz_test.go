package compression_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/stargz-snapshotter/estargz"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/exporter/compression"
	"github.com/slipwaybuild/slipway/exporter/internal/exportertest"
	"github.com/slipwaybuild/slipway/solver/layers/layerstest"
)

// Another program finds files in what was made, and the tar in it is the layer's own.
func TestEStargz(t *testing.T) {
	b := exportertest.New(t)
	ctx := leased(t, b)
	big := string(text(9 << 20)) // several chunks
	tar, _ := layerstest.Tar(t, layerstest.Dir("d", 0o755), layerstest.Text("d/f", "found"), layerstest.HardLink("d/g", "d/f"), layerstest.Text("big", big))
	src := &source{data: tar}
	spec := compression.Spec{Type: compression.EStargz, Level: compression.DefaultLevel}
	d, err := compression.Compress(ctx, b.Images.Content(), spec, src.id(), src.open)
	b.OK(err)
	blob, err := content.ReadBlob(ctx, b.Images.Content(), d)
	b.OK(err)
	r, err := estargz.Open(io.NewSectionReader(bytes.NewReader(blob), 0, int64(len(blob))))
	b.OK(err)
	if _, err := r.VerifyTOC(digest.Digest(d.Annotations[estargz.TOCJSONDigestAnnotation])); err != nil {
		t.Errorf("the table of contents: %v", err)
	}
	f, err := r.OpenFile("d/f")
	b.OK(err)
	if got, err := io.ReadAll(f); err != nil || string(got) != "found" {
		t.Errorf("the file holds %q: %v", got, err)
	}
	z, err := gzip.NewReader(bytes.NewReader(blob))
	b.OK(err)
	whole, err := io.ReadAll(z)
	b.OK(err)
	if !bytes.HasPrefix(whole, tar) || d.Annotations[compression.LabelDiffID] != digest.FromBytes(whole).String() {
		t.Errorf("%d bytes of which the first are not the layer's %d", len(whole), len(tar))
	}
	again, err := compression.Compress(ctx, b.Images.Content(), spec, src.id(), src.open)
	b.OK(err)
	if again.Digest != d.Digest || again.Annotations[estargz.TOCJSONDigestAnnotation] != d.Annotations[estargz.TOCJSONDigestAnnotation] ||
		again.Annotations[compression.LabelDiffID] != d.Annotations[compression.LabelDiffID] || src.opened.Load() != 1 {
		t.Errorf("the second time it is %+v after %+v, read %d times", again, d, src.opened.Load())
	}
}

func TestEStargzInterrupted(t *testing.T) {
	b := exportertest.New(t)
	tar, _ := layerstest.Tar(t, layerstest.Text("a", "a"), layerstest.Text("b", string(text(1<<20))))
	spec := compression.Spec{Type: compression.EStargz, Level: 1}
	broken := errors.New("disk broke")
	for name, src := range map[string]*source{
		"a source that breaks": {data: tar, hook: func() error { return broken }}, "no tar": {data: bytes.Repeat([]byte("x"), 4096)},
	} {
		ctx, done, err := b.Images.WithLease(t.Context())
		b.OK(err)
		if _, err := compression.Compress(ctx, b.Images.Content(), spec, src.id(), src.open); err == nil || src.hook != nil && !errors.Is(err, broken) {
			t.Errorf("%s: %v", name, err)
		}
		left, err := b.Images.Content().ListStatuses(ctx)
		b.OK(err)
		if len(left) != 0 || len(b.Content()) != 0 {
			t.Errorf("%s: left %v, %v", name, left, b.Content())
		}
		b.OK(done(context.WithoutCancel(ctx)))
	}
	ctx := leased(t, b)
	src := &source{data: tar}
	if _, err := compression.Compress(ctx, fullStore{b.Images.Content()}, spec, src.id(), src.open); !errors.Is(err, errFull) {
		t.Errorf("a full disk: %v", err)
	}
}
