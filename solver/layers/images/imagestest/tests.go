package imagestest

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/images"
)

func testImageHoldsItsLayersWhileItHasNames(w *world) {
	ctx := w.Context()
	b := w.build("one", ptr("app:1"))
	diffID := b.config.RootFS.DiffIDs[0]
	w.ok(w.images.Put(ctx, "app:latest", b.target))
	w.want("app:1", "app:latest")
	w.ok(w.images.Delete(ctx, "app:1"))
	if !w.held(diffID) || !w.hasContent(b.target.Digest) || !w.hasContent(b.manifest.Config.Digest) {
		w.Error("the image lost its parts while it had a name")
	}
	w.ok(w.images.Delete(ctx, "app:latest"))
	if w.held(diffID) || w.hasContent(b.target.Digest) || w.hasContent(b.manifest.Config.Digest) {
		w.Error("the image is gone and its parts are kept")
	}
	if err := w.images.Delete(ctx, "app:latest"); !errdefs.IsNotFound(err) {
		w.Errorf("deleting what is not there: %v", err)
	}
}

func testNameThatMovesLeavesADanglingImage(w *world) {
	one := w.build("one", ptr("app"))
	two := w.build("two", ptr("app"))
	w.want("app", images.Dangling(one.target.Digest))
	if !w.held(one.config.RootFS.DiffIDs[0]) || !w.hasContent(one.target.Digest) {
		w.Error("the dangling image lost its parts")
	}
	if i, err := w.images.Get(w.Context(), "app"); err != nil || i.Target.Digest != two.target.Digest {
		w.Errorf("name is of %v, %v", i.Target.Digest, err)
	}
	// Named again, it dangles no more; and the other does.
	w.ok(w.images.Put(w.Context(), "app", one.target))
	w.want("app", images.Dangling(two.target.Digest))
	w.ok(w.images.Delete(w.Context(), images.Dangling(two.target.Digest)))
	if w.held(two.config.RootFS.DiffIDs[0]) {
		w.Error("layers of a deleted dangling image are kept")
	}
}

func testImageWithoutName(w *world) {
	b := w.build("one", ptr(""))
	w.want(images.Dangling(b.target.Digest))
	w.build("one", ptr("")) // again
	w.want(images.Dangling(b.target.Digest))
	w.build("one", ptr("app"))
	w.want("app")
	w.build("one", ptr("")) // it has a name already
	w.want("app")
}

func testStands(w *world) {
	ctx := w.Context()
	b, other := w.build("one", ptr("app")), w.build("two", ptr("other"))
	ref := func(b built) *layers.Ref {
		r, err := w.layers.Pin(ctx, layers.ID(b.config.RootFS.DiffIDs[0]))
		w.ok(err)
		w.Cleanup(func() { _ = r.Release() })
		return r
	}
	one, two := ref(b), ref(other)
	contents := []digest.Digest{b.target.Digest, b.manifest.Config.Digest}
	check := func(why, name string, target ocispecs.Descriptor, contents []digest.Digest, want bool, refs ...*layers.Ref) {
		w.Helper()
		got, err := w.images.Stands(ctx, name, target, contents, refs...)
		w.ok(err)
		if got != (want && !w.images.Shared()) {
			w.Errorf("%s: %v", why, got)
		}
	}
	check("as it was put", "app", b.target, contents, true, one)
	check("no such name", "app:2", b.target, contents, false, one)
	check("another image's name", "other", b.target, contents, false, one)
	check("content that is not there", "app", b.target, append(contents, digest.FromString("gone")), false, one)
	check("other layers", "app", b.target, contents, false, one, two)
	check("no layers", "app", b.target, contents, false)
	changed := b.target
	changed.Annotations = map[string]string{"a": "b"}
	check("another descriptor", "app", changed, contents, false, one)
	w.ok(w.layers.Drop(ctx, "image:"+b.target.Digest.String()))
	check("layers that are not held", "app", b.target, contents, false, one)
}

func testContentOutsideLeasesAndImagesIsCollected(w *world) {
	b := w.build("one", nil)
	if w.hasContent(b.target.Digest) {
		w.Error("content of nobody is kept")
	}
	ctx, done, err := w.images.WithLease(w.Context())
	w.ok(err)
	d := w.write(ctx, "text/plain", []byte("leased"))
	if !w.hasContent(d.Digest) {
		w.Error("leased content is gone")
	}
	w.ok(done(w.Context()))
	if w.hasContent(d.Digest) {
		w.Error("content outlives its lease")
	}
	kctx, err := w.images.Keeping(w.Context())
	w.ok(err)
	kept := w.write(kctx, "text/plain", []byte("kept"))
	if !w.hasContent(kept.Digest) {
		w.Error("kept content is gone")
	}
}

func testKeepAdoptsContent(w *world) {
	ctx, done, err := w.images.WithLease(w.Context())
	w.ok(err)
	d := w.write(ctx, "text/plain", []byte("text"))
	for range 2 {
		w.ok(w.images.Keep(w.Context(), d.Digest, digest.FromString("not there")))
	}
	w.ok(done(w.Context()))
	if !w.hasContent(d.Digest) {
		w.Error("kept content is gone")
	}
}

func testRestart(w *world) {
	b := w.build("one", ptr("app"))
	ctx, _, err := w.images.WithLease(w.Context()) // never ended, as if the process had died
	w.ok(err)
	leased := w.write(ctx, "text/plain", []byte("leased"))
	// Died between giving up a name and giving back the layers.
	gone := w.build("two", ptr("gone"))
	w.ok(w.images.Images().Delete(w.Context(), "gone"))

	w.close()
	w.open()
	w.want("app")
	if !w.held(b.config.RootFS.DiffIDs[0]) || !w.hasContent(b.target.Digest) {
		w.Error("the image lost its parts")
	}
	if w.held(gone.config.RootFS.DiffIDs[0]) {
		w.Error("layers are held for an image that is gone")
	}
	if w.hasContent(leased.Digest) {
		w.Error("a lease outlives its process")
	}
	r, err := w.images.Layers(w.Context(), b.manifest, b.config)
	w.ok(err)
	w.ok(r.Release())
}

func testProviderReadsUncompressedLayersFromTheLayerStore(w *world) {
	b := w.build("some text", ptr("app"))
	ra, err := w.images.Provider().ReaderAt(w.Context(), b.manifest.Layers[0])
	w.ok(err)
	got, err := io.ReadAll(io.NewSectionReader(ra, 0, ra.Size()))
	if err != nil || !bytes.Equal(got, b.tar) {
		w.Errorf("read %d bytes, %v; want the %d of the tar", len(got), err, len(b.tar))
	}
	part := make([]byte, 9)
	if _, err := ra.ReadAt(part, 512); err != nil || string(part) != "some text" {
		w.Errorf("read %q, %v at an offset", part, err)
	}
	if n, err := ra.ReadAt(part, ra.Size()); n != 0 || !errors.Is(err, io.EOF) {
		w.Errorf("at the end: %d, %v", n, err)
	}
	if err := ra.Close(); err != nil {
		w.Error(err)
	}
	for _, d := range []digest.Digest{b.target.Digest, digest.FromString("nothing")} {
		ra, err := w.images.Provider().ReaderAt(w.Context(), ocispecs.Descriptor{Digest: d})
		if there := d == b.target.Digest; there != (err == nil) || !there && !errdefs.IsNotFound(err) {
			w.Errorf("%s: %v", d, err)
		}
		if err == nil {
			_ = ra.Close()
		}
	}
}

func testLayersOfAnImage(w *world) {
	b := w.build("one", ptr("app"))
	missing := digest.FromString("not there")
	with := func(layer ocispecs.Descriptor, diffID digest.Digest) (ocispecs.Manifest, ocispecs.Image) {
		return ocispecs.Manifest{Layers: []ocispecs.Descriptor{b.manifest.Layers[0], layer}},
			ocispecs.Image{RootFS: ocispecs.RootFS{DiffIDs: []digest.Digest{b.config.RootFS.DiffIDs[0], diffID}}}
	}
	if _, err := w.images.Layers(w.Context(), b.manifest, ocispecs.Image{}); err == nil || !strings.Contains(err.Error(), "1 layers") {
		w.Errorf("counts that differ: %v", err)
	}
	if _, err := w.images.Layers(w.Context(), ocispecs.Manifest{Layers: []ocispecs.Descriptor{{Digest: missing}}},
		ocispecs.Image{RootFS: ocispecs.RootFS{DiffIDs: []digest.Digest{missing}}}); !errdefs.IsNotFound(err) {
		w.Errorf("layer that is nowhere: %v", err)
	}
	// A loaded archive: compressed bytes in the content store only.
	ctx, done, err := w.images.WithLease(w.Context())
	w.ok(err)
	blob := w.write(ctx, ocispecs.MediaTypeImageLayerGzip, []byte("compressed"))
	m, c := with(blob, missing)
	r, err := w.images.Layers(ctx, m, c)
	w.ok(err)
	if got := r.Layers(); got[0].Kind != layers.Blob || got[1].Kind != layers.Remote || got[1].Remote == nil || got[1].Remote.Ref != "" {
		w.Errorf("layers are %+v", got)
	}
	if err := r.Release(); err != nil {
		w.Error(err)
	}
	if err := done(w.Context()); err != nil {
		w.Error(err)
	}
}

func testPutOfWhatIsNotThere(w *world) {
	d := ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageManifest, Digest: digest.FromString("x"), Size: 1}
	if err := w.images.Put(w.Context(), "app", d); !errdefs.IsNotFound(err) {
		w.Errorf("got %v, want not found", err)
	}
	w.want()
}

func testSecondProcess(w *world) {
	backing, closeIt := w.fresh()
	defer func() { w.ok(closeIt()) }()
	if _, err := images.Open(w.Context(), images.Options{Root: w.root + "/images", Layers: w.layers, Backing: backing}); err == nil || !strings.Contains(err.Error(), "in use") {
		w.Errorf("got %v, want an error that says it is in use", err)
	}
}

func testProviderReadsThePackedLayerOfAStep(w *world) {
	ctx := w.Context()
	up, err := w.layers.NewUpper(ctx)
	w.ok(err)
	ref, err := w.layers.Seal(ctx, up, layers.ImportOptions{})
	w.ok(err)
	ids, err := w.layers.Solidify(ctx, ref)
	w.ok(err)
	lctx, done, err := w.images.WithLease(ctx)
	w.ok(err)
	target := w.write(lctx, ocispecs.MediaTypeImageManifest, []byte(`{"schemaVersion":2}`))
	w.ok(w.images.Put(lctx, "app", target, ref))
	w.ok(errors.Join(done(ctx), ref.Release()))
	ra, err := w.images.Provider().ReaderAt(ctx, ocispecs.Descriptor{Digest: ids[0]})
	w.ok(err)
	got, err := digest.FromReader(io.NewSectionReader(ra, 0, ra.Size()))
	if err != nil || got != ids[0] {
		w.Errorf("read %s, %v; want %s", got, err, ids[0])
	}
	if err := ra.Close(); err != nil {
		w.Error(err)
	}
	m := ocispecs.Manifest{Layers: []ocispecs.Descriptor{{MediaType: ocispecs.MediaTypeImageLayer, Digest: ids[0]}}}
	r, err := w.images.Layers(ctx, m, ocispecs.Image{RootFS: ocispecs.RootFS{DiffIDs: ids}})
	w.ok(err)
	if err := r.Release(); err != nil {
		w.Error(err)
	}
}
