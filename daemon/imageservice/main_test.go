package imageservice_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/daemon/events"
	"github.com/slipwaybuild/slipway/daemon/imageservice"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/images"
	"github.com/slipwaybuild/slipway/solver/source/registry"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// Connections of the test's own client end by themselves.
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}

// world is a service over real stores.
type world struct {
	*imageservice.Service
	t      testing.TB
	layers *layers.Store
	images *images.Store
	hub    events.Hub
}

func newWorld(t testing.TB) *world {
	t.Helper()
	ctx, dir, w := context.Background(), t.TempDir(), &world{t: t}
	var err error
	if w.layers, err = layers.Open(ctx, layers.Options{Root: dir + "/layers", Realisation: "unpacked"}); err != nil {
		t.Fatal(err)
	}
	if w.images, err = images.Open(ctx, images.Options{Root: dir + "/images", Layers: w.layers}); err != nil {
		t.Fatal(err)
	}
	reg, err := registry.New(registry.Options{Backoff: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, close := range []func() error{reg.Close, w.images.Close, w.layers.Close} {
			if err := close(); err != nil { // the layer store's error names leaks
				t.Error(err)
			}
		}
	})
	w.Service = imageservice.New(imageservice.Options{
		Images: w.images, Layers: w.layers, Registry: reg, Events: &w.hub,
		Platform: ocispecs.Platform{OS: "linux", Architecture: "amd64"},
	})
	return w
}

// tarOf is a layer with one file.
func tarOf(t testing.TB, name, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func asJSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// built is an image as a build leaves it: one layer, uncompressed, in the layer store.
type built struct {
	target, config ocispecs.Descriptor
	layer          []byte
}

func (b built) id() string { return b.target.Digest.String() }

// build makes an image with names; none makes it dangling.
func (w *world) build(text string, config ocispecs.Image, names ...string) built {
	w.t.Helper()
	ctx, done, err := w.images.WithLease(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() {
		if err := done(context.Background()); err != nil {
			w.t.Error(err)
		}
	}()
	b := built{layer: tarOf(w.t, "f", text)}
	ref, err := w.layers.Import(ctx, bytes.NewReader(b.layer), layers.ImportOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = ref.Release() }()
	d := digest.FromBytes(b.layer)
	config.Platform = ocispecs.Platform{OS: "linux", Architecture: "amd64"}
	config.RootFS = ocispecs.RootFS{Type: "layers", DiffIDs: []digest.Digest{d}}
	b.config = w.write(ctx, ocispecs.MediaTypeImageConfig, asJSON(w.t, config))
	b.target = w.write(ctx, ocispecs.MediaTypeImageManifest, asJSON(w.t, ocispecs.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest, Config: b.config,
		Layers: []ocispecs.Descriptor{{MediaType: ocispecs.MediaTypeImageLayer, Digest: d, Size: int64(len(b.layer))}},
	}))
	if len(names) == 0 {
		names = []string{""}
	}
	for _, n := range names {
		if err := w.images.Put(ctx, n, b.target, ref); err != nil {
			w.t.Fatal(err)
		}
	}
	return b
}

func (w *world) write(ctx context.Context, mediaType string, b []byte) ocispecs.Descriptor {
	w.t.Helper()
	d := ocispecs.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	if err := content.WriteBlob(ctx, w.images.Content(), d.Digest.String(), bytes.NewReader(b), d); err != nil {
		w.t.Fatal(err)
	}
	return d
}

// heard lists the actions of images since the listener was made, with their names.
func heard(l *events.Listener) (out []string) {
	for {
		select {
		case m := <-l.Next():
			out = append(out, string(m.Action)+" "+m.Actor.Attributes["name"])
		default:
			return out
		}
	}
}
