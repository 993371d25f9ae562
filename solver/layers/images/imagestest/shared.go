package imagestest

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/layers"
)

// What is kept is kept again after its lease was removed, which others who share the store can do.
func testSomebodyElseRemovesALease(w *world) {
	if !w.images.Shared() {
		return // nobody else can
	}
	ctx, done, err := w.images.WithLease(w.Context())
	w.ok(err)
	d := w.write(ctx, "text/plain", []byte("text"))
	w.ok(w.images.Keep(w.Context(), d.Digest))
	w.removeKeepLeases()
	w.ok(w.images.Keep(w.Context(), d.Digest))
	w.ok(done(w.Context()))
	if !w.hasContent(d.Digest) {
		w.Error("content that was kept again is gone")
	}
}

func (w *world) removeKeepLeases() {
	w.Helper()
	backing, closeIt := w.fresh()
	defer func() { w.ok(closeIt()) }()
	all, err := backing.Leases().List(w.Context())
	w.ok(err)
	for _, l := range all {
		if strings.Contains(l.ID, "keep") {
			w.ok(backing.Leases().Delete(w.Context(), l))
		}
	}
}

// A build that found a layer in the store reads it later, whatever becomes of the image meanwhile.
func testLazyLayersAreKeptForTheirReader(w *world) {
	ctx, done, err := w.images.WithLease(w.Context())
	w.ok(err)
	blob := w.write(ctx, ocispecs.MediaTypeImageLayerGzip, []byte("compressed"))
	r, err := w.images.Layers(ctx, ocispecs.Manifest{Layers: []ocispecs.Descriptor{blob}},
		ocispecs.Image{RootFS: ocispecs.RootFS{DiffIDs: []digest.Digest{digest.FromString("diffID")}}})
	w.ok(err)
	w.ok(done(w.Context()))
	if !w.hasContent(blob.Digest) {
		w.Error("the layer is gone before it was read")
	}
	w.ok(r.Release())
}

// Where others read the content, an image is whole there; elsewhere its layers are not stored twice.
func testSharedStoreHasTheLayers(w *world) {
	b := w.build("one", ptr("app"))
	if got := w.hasContent(b.manifest.Layers[0].Digest); got != w.images.Shared() {
		w.Errorf("the layer is among the content: %v; the store is shared: %v", got, w.images.Shared())
	}
	if !w.images.Shared() {
		return
	}
	got, err := content.ReadBlob(w.Context(), w.images.Content(), b.manifest.Layers[0])
	w.ok(err)
	if !bytes.Equal(got, b.tar) {
		w.Errorf("%d bytes of the layer, want %d", len(got), len(b.tar))
	}
}

// remote is an image whose layer is at a registry.
func (w *world) remote(ctx context.Context) (target ocispecs.Descriptor, ref *layers.Ref, blob []byte) {
	w.Helper()
	blob = []byte("a compressed layer")
	diffID := digest.FromString("what it is uncompressed")
	d := ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayerGzip, Digest: digest.FromBytes(blob), Size: int64(len(blob))}
	ref, err := w.layers.AddRemote(ctx, layers.RemoteBlob{Ref: "registry.example/a:1", Descriptor: d, DiffID: diffID})
	w.ok(err)
	config := w.write(ctx, ocispecs.MediaTypeImageConfig, marshal(w, ocispecs.Image{RootFS: ocispecs.RootFS{DiffIDs: []digest.Digest{diffID}}}))
	target = w.write(ctx, ocispecs.MediaTypeImageManifest, marshal(w, ocispecs.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest,
		Config: config, Layers: []ocispecs.Descriptor{d},
	}))
	return target, ref, blob
}

// fetcher gives the same bytes to everybody.
type fetcher struct {
	data []byte
	n    atomic.Int32
}

func (f *fetcher) Fetch(context.Context, layers.RemoteBlob) (io.ReadCloser, error) {
	f.n.Add(1)
	return io.NopCloser(bytes.NewReader(f.data)), nil
}

func testBringFetches(w *world) {
	ctx, done, err := w.images.WithLease(w.Context())
	w.ok(err)
	target, ref, blob := w.remote(ctx)
	wrong := &fetcher{data: []byte("some other bytes..")}
	if err := w.images.Bring(ctx, target, wrong, ref); w.images.Shared() && err == nil {
		w.Error("bytes that are not the layer's were taken for it")
	}
	f := &fetcher{data: blob}
	for range 2 {
		w.ok(w.images.Bring(ctx, target, f, ref))
	}
	want := int32(0)
	if w.images.Shared() {
		want = 1
	}
	if n := f.n.Load(); n != want {
		w.Errorf("fetched %d times, want %d", n, want)
	}
	w.ok(w.images.Put(ctx, "app", target, ref))
	w.ok(done(w.Context()))
	w.ok(ref.Release())
	if got := w.hasContent(digest.FromBytes(blob)); got != w.images.Shared() {
		w.Errorf("the layer is among the content: %v; the store is shared: %v", got, w.images.Shared())
	}
}

func testPutOfLayersThatAreElsewhere(w *world) {
	ctx, done, err := w.images.WithLease(w.Context())
	w.ok(err)
	target, ref, _ := w.remote(ctx)
	err = w.images.Put(ctx, "app", target, ref)
	if w.images.Shared() && (!errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "registry.example/a:1")) {
		w.Errorf("got %v, want an error that says where the layer is", err)
	}
	if !w.images.Shared() {
		w.ok(err)
		w.want("app")
	} else {
		w.want()
	}
	w.ok(done(w.Context()))
	w.ok(ref.Release())
}
