package imagestest

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/layers"
)

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
	w.Helper()
	d := ocispecs.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	w.ok(content.WriteBlob(ctx, w.images.Content(), d.Digest.String(), bytes.NewReader(b), d))
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
	w.Helper()
	ctx, done, err := w.images.WithLease(w.Context())
	w.ok(err)
	b := built{tar: tarOf(w, "file", text)}
	ref, err := w.layers.Import(ctx, bytes.NewReader(b.tar), layers.ImportOptions{})
	w.ok(err)
	diffID := ref.Layers()[0].DiffID
	b.config = ocispecs.Image{Platform: ocispecs.Platform{OS: "linux", Architecture: "amd64"}, RootFS: ocispecs.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}}}
	b.manifest = ocispecs.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest,
		Config: w.write(ctx, ocispecs.MediaTypeImageConfig, marshal(w, b.config)),
		Layers: []ocispecs.Descriptor{{MediaType: ocispecs.MediaTypeImageLayer, Digest: diffID, Size: int64(len(b.tar))}},
	}
	b.target = w.write(ctx, ocispecs.MediaTypeImageManifest, marshal(w, b.manifest))
	if name != nil {
		w.ok(w.images.Put(ctx, *name, b.target, ref))
	}
	w.ok(ref.Release())
	w.ok(done(w.Context()))
	return b
}

func (w *world) names() []string {
	w.Helper()
	all, err := w.images.List(w.Context())
	w.ok(err)
	out := []string{}
	for _, i := range all {
		out = append(out, i.Name)
	}
	return out
}

// held tells whether an image's layer can be read after all that may go has gone.
func (w *world) held(diffID digest.Digest) bool {
	w.Helper()
	w.ok(w.images.GC(w.Context()))
	w.ok(w.layers.Prune(w.Context(), layers.PruneOptions{All: true}, func(layers.Usage) {}))
	ra, err := w.images.Provider().ReaderAt(w.Context(), ocispecs.Descriptor{Digest: diffID})
	if errdefs.IsNotFound(err) {
		return false
	}
	w.ok(err)
	got, err := digest.FromReader(io.NewSectionReader(ra, 0, ra.Size()))
	w.ok(errors.Join(err, ra.Close()))
	if got != diffID {
		w.Errorf("the layer reads as %s, want %s", got, diffID)
	}
	return true
}

func (w *world) hasContent(d digest.Digest) bool {
	w.Helper()
	w.ok(w.images.GC(w.Context()))
	_, err := w.images.Content().Info(w.Context(), d)
	if err != nil && !errdefs.IsNotFound(err) {
		w.Fatal(err)
	}
	return err == nil
}

func (w *world) want(names ...string) {
	w.Helper()
	if got := w.names(); !slices.Equal(got, names) {
		w.Errorf("names are %q, want %q", got, names)
	}
}

func ptr(s string) *string { return &s }
