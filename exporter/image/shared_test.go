package image_test

import (
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/exporter/image"
	"github.com/slipwaybuild/slipway/exporter/internal/exportertest"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/images/containerd"
	"github.com/slipwaybuild/slipway/solver/layers/images/containerdtest"
	"github.com/slipwaybuild/slipway/solver/layers/layerstest"
)

// inContainerd is a bench whose images are in a containerd of their own.
func inContainerd(t *testing.T) *exportertest.Bench {
	t.Helper()
	if err := containerdtest.Missing(); err != nil {
		t.Skip(err)
	}
	s, err := containerdtest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("end containerd: %v", err)
		}
	})
	d, err := containerd.Connect(t.Context(), containerd.Options{Address: s.Address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return exportertest.NewIn(t, d)
}

// Others who read the store find all layers there, brought from wherever they are, unless the client wants to do without.
func TestSharedStoreIsWhole(t *testing.T) {
	t.Parallel()
	b := inContainerd(t)
	o := options(t, b)
	base, blobs := b.Remote("registry.example/base:1", layerstest.Text("a", "1"))
	in := exportertest.Input(b.Stack(base, b.Rich()), "", nil)
	in.Fetcher = blobs

	export(t, o, map[string]string{"name": "x", "store-allow-incomplete": "true"}, in)
	if blobs.Fetched() != 0 {
		t.Error("a layer was brought for an image that need not be whole")
	}
	export(t, o, map[string]string{"name": "x", "unpack": "true"}, in)
	if blobs.Fetched() != 1 {
		t.Errorf("fetched %d times, want once", blobs.Fetched())
	}
	img, err := b.Images.Get(t.Context(), "docker.io/library/x:latest")
	b.OK(err)
	m := read[ocispecs.Manifest](t, b, img.Target)
	if len(m.Layers) != 4 {
		t.Fatalf("layers %+v", m.Layers)
	}
	for _, l := range m.Layers {
		got, err := content.ReadBlob(t.Context(), b.Images.Content(), l)
		b.OK(err)
		if l.Digest.Algorithm().FromBytes(got) != l.Digest {
			t.Errorf("layer %s has other bytes", l.Digest)
		}
	}
}

// A layer that others brought is used in the form in which they brought it.
func TestSharedLayersStayAsTheyAre(t *testing.T) {
	t.Parallel()
	b := inContainerd(t)
	o := options(t, b)
	base, blobs := b.Remote("registry.example/base:1", layerstest.Text("a", "1"))
	in := exportertest.Input(base, "", nil)
	in.Fetcher = blobs
	export(t, o, map[string]string{"name": "x"}, in)
	img, err := b.Images.Get(t.Context(), "docker.io/library/x:latest")
	b.OK(err)
	m := read[ocispecs.Manifest](t, b, img.Target)
	b.OK(base.Release())
	b.OK(b.Layers.Prune(t.Context(), layers.PruneOptions{All: true}, func(layers.Usage) {}))

	again, err := b.Images.Layers(t.Context(), m, read[ocispecs.Image](t, b, m.Config))
	again = b.Own(again, err)
	in = exportertest.Input(again, "", nil)
	var stored exportertest.Blobs
	gz, err := content.ReadBlob(t.Context(), b.Images.Content(), m.Layers[0])
	b.OK(err)
	stored.Add(m.Layers[0].Digest.String(), gz)
	in.Fetcher = &stored
	export(t, o, map[string]string{"name": "y"}, in)
	if img, err = b.Images.Get(t.Context(), "docker.io/library/y:latest"); err != nil {
		t.Fatal(err)
	}
	if got := read[ocispecs.Manifest](t, b, img.Target); got.Layers[0].Digest != m.Layers[0].Digest {
		t.Errorf("layers %+v, were %+v", got.Layers, m.Layers)
	}
}

func TestIncompleteIsNotUnpacked(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	_, err := run(t.Context(), t, options(t, b), false, map[string]string{"store-allow-incomplete": "true"}, exportertest.Input(b.Layer("x"), "", nil))
	b.OK(err)
	if _, err := image.New(options(t, b), false)(0, map[string]string{"store-allow-incomplete": "true", "unpack": "true"}); err == nil || !strings.Contains(err.Error(), "unpack") {
		t.Errorf("got %v", err)
	}
}
