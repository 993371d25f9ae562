package images_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/images"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is an image store and the layer store below it, which can be closed and opened again.
type world struct {
	t      testing.TB
	root   string
	layers *layers.Store
	images *images.Store
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, root: t.TempDir()}
	w.open()
	t.Cleanup(w.close)
	return w
}

func (w *world) open() {
	w.t.Helper()
	ctx := context.Background()
	var err error
	w.layers, err = layers.Open(ctx, layers.Options{Root: w.root + "/layers", Realisation: "unpacked"})
	if err != nil {
		w.t.Fatal(err)
	}
	w.images, err = images.Open(ctx, images.Options{Root: w.root + "/images", Layers: w.layers})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) close() {
	w.t.Helper()
	if err := w.images.Close(); err != nil {
		w.t.Error(err)
	}
	if err := w.layers.Close(); err != nil {
		w.t.Error(err)
	}
}

// tarOf is an uncompressed layer with one file.
func tarOf(t testing.TB, name, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
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

// write puts content in the store under a lease that the test keeps.
func (w *world) write(ctx context.Context, mediaType string, b []byte) ocispecs.Descriptor {
	w.t.Helper()
	d := ocispecs.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	if err := content.WriteBlob(ctx, w.images.Content(), d.Digest.String(), bytes.NewReader(b), d); err != nil {
		w.t.Fatal(err)
	}
	return d
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// built is an image of one uncompressed layer, as an exporter would make it.
type built struct {
	manifest ocispecs.Manifest
	config   ocispecs.Image
	target   ocispecs.Descriptor
	tar      []byte
}

// build makes an image and, if name is not nil, names it.
func (w *world) build(text string, name *string) built {
	w.t.Helper()
	ctx, done, err := w.images.WithLease(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	b := built{tar: tarOf(w.t, "file", text)}
	ref, err := w.layers.Import(ctx, bytes.NewReader(b.tar), layers.ImportOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	diffID := ref.Layers()[0].DiffID
	b.config = ocispecs.Image{Platform: ocispecs.Platform{OS: "linux", Architecture: "amd64"}, RootFS: ocispecs.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}}}
	b.manifest = ocispecs.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest,
		Config: w.write(ctx, ocispecs.MediaTypeImageConfig, marshal(w.t, b.config)),
		Layers: []ocispecs.Descriptor{{MediaType: ocispecs.MediaTypeImageLayer, Digest: diffID, Size: int64(len(b.tar))}},
	}
	b.target = w.write(ctx, ocispecs.MediaTypeImageManifest, marshal(w.t, b.manifest))
	if name != nil {
		if err := w.images.Put(ctx, *name, b.target, ref); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := ref.Release(); err != nil {
		w.t.Fatal(err)
	}
	if err := done(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	return b
}

func (w *world) names() []string {
	w.t.Helper()
	all, err := w.images.List(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	out := []string{}
	for _, i := range all {
		out = append(out, i.Name)
	}
	return out
}

// held tells whether the layer survives a prune.
func (w *world) held(d digest.Digest) bool {
	w.t.Helper()
	if err := w.layers.Prune(w.t.Context(), layers.PruneOptions{All: true}, func(layers.Usage) {}); err != nil {
		w.t.Fatal(err)
	}
	r, err := w.layers.Pin(w.t.Context(), layers.ID(d))
	if err != nil {
		return false
	}
	if err := r.Release(); err != nil {
		w.t.Fatal(err)
	}
	return true
}

func (w *world) hasContent(d digest.Digest) bool {
	w.t.Helper()
	if err := w.images.GC(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	_, err := w.images.Content().Info(w.t.Context(), d)
	if err != nil && !errdefs.IsNotFound(err) {
		w.t.Fatal(err)
	}
	return err == nil
}

func (w *world) want(names ...string) {
	w.t.Helper()
	if got := w.names(); !slices.Equal(got, names) {
		w.t.Errorf("names are %q, want %q", got, names)
	}
}

func ptr(s string) *string { return &s }

func TestImageHoldsItsLayersWhileItHasNames(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	b := w.build("one", ptr("app:1"))
	diffID := b.config.RootFS.DiffIDs[0]
	if err := w.images.Put(ctx, "app:latest", b.target); err != nil {
		t.Fatal(err)
	}
	w.want("app:1", "app:latest")
	if err := w.images.Delete(ctx, "app:1"); err != nil {
		t.Fatal(err)
	}
	if !w.held(diffID) || !w.hasContent(b.target.Digest) || !w.hasContent(b.manifest.Config.Digest) {
		t.Error("the image lost its parts while it had a name")
	}
	if err := w.images.Delete(ctx, "app:latest"); err != nil {
		t.Fatal(err)
	}
	if w.held(diffID) || w.hasContent(b.target.Digest) || w.hasContent(b.manifest.Config.Digest) {
		t.Error("the image is gone and its parts are kept")
	}
	if err := w.images.Delete(ctx, "app:latest"); !errdefs.IsNotFound(err) {
		t.Errorf("deleting what is not there: %v", err)
	}
}

func TestNameThatMovesLeavesADanglingImage(t *testing.T) {
	w := newWorld(t)
	one := w.build("one", ptr("app"))
	two := w.build("two", ptr("app"))
	w.want("app", images.Dangling(one.target.Digest))
	if !w.held(one.config.RootFS.DiffIDs[0]) || !w.hasContent(one.target.Digest) {
		t.Error("the dangling image lost its parts")
	}
	if i, err := w.images.Get(t.Context(), "app"); err != nil || i.Target.Digest != two.target.Digest {
		t.Errorf("name is of %v, %v", i.Target.Digest, err)
	}
	// Named again, it dangles no more; and the other does.
	if err := w.images.Put(t.Context(), "app", one.target); err != nil {
		t.Fatal(err)
	}
	w.want("app", images.Dangling(two.target.Digest))
	if err := w.images.Delete(t.Context(), images.Dangling(two.target.Digest)); err != nil {
		t.Fatal(err)
	}
	if w.held(two.config.RootFS.DiffIDs[0]) {
		t.Error("layers of a deleted dangling image are kept")
	}
}

func TestImageWithoutName(t *testing.T) {
	w := newWorld(t)
	b := w.build("one", ptr(""))
	w.want(images.Dangling(b.target.Digest))
	w.build("one", ptr("")) // again
	w.want(images.Dangling(b.target.Digest))
	w.build("one", ptr("app"))
	w.want("app")
	w.build("one", ptr("")) // it has a name already
	w.want("app")
}

func TestContentOutsideLeasesAndImagesIsCollected(t *testing.T) {
	w := newWorld(t)
	b := w.build("one", nil)
	if w.hasContent(b.target.Digest) {
		t.Error("content of nobody is kept")
	}
	ctx, done, err := w.images.WithLease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d := w.write(ctx, "text/plain", []byte("leased"))
	if !w.hasContent(d.Digest) {
		t.Error("leased content is gone")
	}
	if err := done(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.hasContent(d.Digest) {
		t.Error("content outlives its lease")
	}
	kctx, err := w.images.Keeping(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	kept := w.write(kctx, "text/plain", []byte("kept"))
	if !w.hasContent(kept.Digest) {
		t.Error("kept content is gone")
	}
}

func TestKeepAdoptsContent(t *testing.T) {
	w := newWorld(t)
	ctx, done, err := w.images.WithLease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d := w.write(ctx, "text/plain", []byte("text"))
	for range 2 {
		if err := w.images.Keep(t.Context(), d.Digest, digest.FromString("not there")); err != nil {
			t.Fatal(err)
		}
	}
	if err := done(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !w.hasContent(d.Digest) {
		t.Error("kept content is gone")
	}
}

func TestRestart(t *testing.T) {
	w := newWorld(t)
	b := w.build("one", ptr("app"))
	ctx, _, err := w.images.WithLease(t.Context()) // never ended, as if the process had died
	if err != nil {
		t.Fatal(err)
	}
	leased := w.write(ctx, "text/plain", []byte("leased"))
	// Died between giving up a name and giving back the layers.
	gone := w.build("two", ptr("gone"))
	if err := w.images.Images().Delete(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}

	w.close()
	w.open()
	w.want("app")
	if !w.held(b.config.RootFS.DiffIDs[0]) || !w.hasContent(b.target.Digest) {
		t.Error("the image lost its parts")
	}
	if w.held(gone.config.RootFS.DiffIDs[0]) {
		t.Error("layers are held for an image that is gone")
	}
	if w.hasContent(leased.Digest) {
		t.Error("a lease outlives its process")
	}
	r, err := w.images.Layers(t.Context(), b.manifest, b.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Release(); err != nil {
		t.Fatal(err)
	}
}

func TestProviderReadsUncompressedLayersFromTheLayerStore(t *testing.T) {
	w := newWorld(t)
	b := w.build("some text", ptr("app"))
	ra, err := w.images.Provider().ReaderAt(t.Context(), b.manifest.Layers[0])
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(io.NewSectionReader(ra, 0, ra.Size()))
	if err != nil || !bytes.Equal(got, b.tar) {
		t.Errorf("read %d bytes, %v; want the %d of the tar", len(got), err, len(b.tar))
	}
	part := make([]byte, 9)
	if _, err := ra.ReadAt(part, 512); err != nil || string(part) != "some text" {
		t.Errorf("read %q, %v at an offset", part, err)
	}
	if n, err := ra.ReadAt(part, ra.Size()); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %d, %v", n, err)
	}
	if err := ra.Close(); err != nil {
		t.Error(err)
	}
	for _, d := range []digest.Digest{b.target.Digest, digest.FromString("nothing")} {
		ra, err := w.images.Provider().ReaderAt(t.Context(), ocispecs.Descriptor{Digest: d})
		if there := d == b.target.Digest; there != (err == nil) || !there && !errdefs.IsNotFound(err) {
			t.Errorf("%s: %v", d, err)
		}
		if err == nil {
			_ = ra.Close()
		}
	}
}

func TestLayersOfAnImage(t *testing.T) {
	w := newWorld(t)
	b := w.build("one", ptr("app"))
	missing := digest.FromString("not there")
	with := func(layer ocispecs.Descriptor, diffID digest.Digest) (ocispecs.Manifest, ocispecs.Image) {
		return ocispecs.Manifest{Layers: []ocispecs.Descriptor{b.manifest.Layers[0], layer}},
			ocispecs.Image{RootFS: ocispecs.RootFS{DiffIDs: []digest.Digest{b.config.RootFS.DiffIDs[0], diffID}}}
	}
	if _, err := w.images.Layers(t.Context(), b.manifest, ocispecs.Image{}); err == nil || !strings.Contains(err.Error(), "1 layers") {
		t.Errorf("counts that differ: %v", err)
	}
	if _, err := w.images.Layers(t.Context(), ocispecs.Manifest{Layers: []ocispecs.Descriptor{{}}},
		ocispecs.Image{RootFS: ocispecs.RootFS{DiffIDs: []digest.Digest{missing}}}); !errdefs.IsNotFound(err) {
		t.Errorf("layer that is nowhere: %v", err)
	}
	// A loaded archive: compressed bytes in the content store only.
	ctx, done, err := w.images.WithLease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	blob := w.write(ctx, ocispecs.MediaTypeImageLayerGzip, []byte("compressed"))
	m, c := with(blob, missing)
	r, err := w.images.Layers(ctx, m, c)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Layers(); got[0].Kind != layers.Blob || got[1].Kind != layers.Remote || got[1].Remote == nil || got[1].Remote.Ref != "" {
		t.Errorf("layers are %+v", got)
	}
	if err := r.Release(); err != nil {
		t.Error(err)
	}
	if err := done(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestPutOfWhatIsNotThere(t *testing.T) {
	w := newWorld(t)
	d := ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageManifest, Digest: digest.FromString("x"), Size: 1}
	if err := w.images.Put(t.Context(), "app", d); !errdefs.IsNotFound(err) {
		t.Errorf("got %v, want not found", err)
	}
	w.want()
}

func TestSecondProcess(t *testing.T) {
	w := newWorld(t)
	if _, err := images.Open(t.Context(), images.Options{Root: w.root + "/images", Layers: w.layers}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v, want an error that says it is in use", err)
	}
}

func TestProviderReadsThePackedLayerOfAStep(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	up, err := w.layers.NewUpper(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := w.layers.Seal(ctx, up, layers.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ids, err := w.layers.Solidify(ctx, ref)
	if err != nil {
		t.Fatal(err)
	}
	lctx, done, err := w.images.WithLease(ctx)
	if err != nil {
		t.Fatal(err)
	}
	target := w.write(lctx, ocispecs.MediaTypeImageManifest, []byte(`{"schemaVersion":2}`))
	if err := w.images.Put(lctx, "app", target, ref); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(done(ctx), ref.Release()); err != nil {
		t.Fatal(err)
	}
	ra, err := w.images.Provider().ReaderAt(ctx, ocispecs.Descriptor{Digest: ids[0]})
	if err != nil {
		t.Fatal(err)
	}
	got, err := digest.FromReader(io.NewSectionReader(ra, 0, ra.Size()))
	if err != nil || got != ids[0] {
		t.Errorf("read %s, %v; want %s", got, err, ids[0])
	}
	if err := ra.Close(); err != nil {
		t.Error(err)
	}
	m := ocispecs.Manifest{Layers: []ocispecs.Descriptor{{MediaType: ocispecs.MediaTypeImageLayer, Digest: ids[0]}}}
	r, err := w.images.Layers(ctx, m, ocispecs.Image{RootFS: ocispecs.RootFS{DiffIDs: ids}})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Release(); err != nil {
		t.Error(err)
	}
}
