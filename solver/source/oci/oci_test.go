package oci_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	sessioncontent "github.com/moby/buildkit/session/content"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/sessiontest"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/images"
	"github.com/slipwaybuild/slipway/solver/source"
	"github.com/slipwaybuild/slipway/solver/source/image"
	"github.com/slipwaybuild/slipway/solver/source/oci"
	"github.com/slipwaybuild/slipway/solver/source/registry"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var amd64 = ocispecs.Platform{OS: "linux", Architecture: "amd64"}

// world is the daemon's side.
type world struct {
	layers *layers.Store
	source *oci.Source
	images *image.Source
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{}
	root := t.TempDir()
	var err error
	if w.layers, err = layers.Open(t.Context(), layers.Options{Root: root + "/layers", Realisation: "unpacked"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closer(t, w.layers))
	store, err := images.Open(t.Context(), images.Options{Root: root + "/images", Layers: w.layers})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closer(t, store))
	reg, err := registry.New(registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closer(t, reg))
	w.images = image.New(image.Options{Images: store, Layers: w.layers, Registry: reg})
	t.Cleanup(closer(t, w.images))
	w.source = oci.New(oci.Options{Images: store, Layers: w.layers})
	return w
}

func closer(t *testing.T, c io.Closer) func() {
	return func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// layout is the client's side: a content store with an image, which counts how often its layer is read.
type layout struct {
	content.Store
	root, layer digest.Digest
	reads       atomic.Int64
}

func (l *layout) ReaderAt(ctx context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	if d.Digest == l.layer {
		l.reads.Add(1)
	}
	return l.Store.ReaderAt(ctx, d)
}

func newLayout(t *testing.T) *layout {
	t.Helper()
	store, err := local.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l := &layout{Store: store}
	add := func(mediaType string, b []byte) ocispecs.Descriptor {
		d := ocispecs.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
		if err := content.WriteBlob(t.Context(), store, d.Digest.String(), bytes.NewReader(b), d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	addJSON := func(mediaType string, v any) ocispecs.Descriptor {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return add(mediaType, b)
	}
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	if err := tw.WriteHeader(&tar.Header{Name: "file", Mode: 0o600}); err != nil {
		t.Fatal(err)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	layer := add(ocispecs.MediaTypeImageLayer, b.Bytes())
	config := addJSON(ocispecs.MediaTypeImageConfig, ocispecs.Image{Platform: amd64, RootFS: ocispecs.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}}})
	manifest := addJSON(ocispecs.MediaTypeImageManifest, ocispecs.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest, Config: config, Layers: []ocispecs.Descriptor{layer},
	})
	manifest.Platform = &amd64
	index := addJSON(ocispecs.MediaTypeImageIndex, ocispecs.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispecs.Descriptor{manifest}})
	l.root, l.layer = index.Digest, layer.Digest
	return l
}

func (l *layout) client(id string) session.Attachable {
	return sessioncontent.NewAttachable(map[string]content.Store{"oci:" + id: l})
}

func env(g *session.Group) source.Env {
	return source.Env{Sessions: func() *session.Group { return g }}
}

func TestImageInAClientsStore(t *testing.T) {
	for _, tt := range []struct{ name, ref, store string }{
		{"store by attribute", "any/name", "abc"},
		{"store by name", "abc", ""},
		{"store by name with tag", "abc:latest", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, l := newWorld(t), newLayout(t)
			g := sessiontest.Pair(t, l.client("abc"))
			p, err := w.source.Pin(t.Context(), env(g), source.Request{
				Identifier: "oci-layout://" + tt.ref + "@" + l.root.String(), Platform: amd64,
				Attrs: map[string]string{pb.AttrOCILayoutStoreID: tt.store},
			})
			if err != nil {
				t.Fatal(err)
			}
			r, err := p.Fetch(t.Context(), env(g))
			if err != nil {
				t.Fatal(err)
			}
			if n := l.reads.Load(); n != 0 {
				t.Errorf("the layer was read %d times before its bytes were needed", n)
			}
			if err := w.layers.Fetch(t.Context(), r, w.images.Fetcher(env(g).Sessions), nil); err != nil {
				t.Fatal(err)
			}
			if infos := r.Layers(); len(infos) != 1 || infos[0].Kind != layers.Blob || infos[0].DiffID != l.layer {
				t.Errorf("layers are %+v", infos)
			}
			if err := r.Release(); err != nil {
				t.Error(err)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestResolveConfig(t *testing.T) {
	w, l := newWorld(t), newLayout(t)
	c, err := w.source.ResolveConfig(t.Context(), env(sessiontest.Pair(t, l.client("abc"))), "abc@"+l.root.String(), "", amd64)
	if err != nil {
		t.Fatal(err)
	}
	if c.Digest != l.root || !strings.Contains(string(c.JSON), "diff_ids") {
		t.Errorf("config is %+v", c)
	}
}

func TestTheSessionThatHasItIsAsked(t *testing.T) {
	w, l, other := newWorld(t), newLayout(t), newLayout(t)
	m := sessiontest.NewManager(t, session.ManagerOptions{})
	door := sessiontest.HTTP(t, m)
	var ids []string
	for _, a := range []session.Attachable{other.client("other"), l.client("abc")} {
		s := session.New(session.Options{})
		s.Allow(a)
		ids = append(ids, sessiontest.Run(t, m, door, s).ID())
	}
	if _, err := w.source.ResolveConfig(t.Context(), env(m.Group(ids...)), "abc@"+l.root.String(), "", amd64); err != nil {
		t.Error(err)
	}
}

func TestErrors(t *testing.T) {
	w, l := newWorld(t), newLayout(t)
	g := sessiontest.Pair(t, l.client("abc"))
	missing := digest.FromString("missing").String()
	for _, tt := range []struct {
		name, id string
		g        *session.Group
		want     string
		is       error
	}{
		{"no digest", "oci-layout://abc:latest", g, "must have digest", nil},
		{"bad digest", "oci-layout://abc@sha256:x", g, "invalid", nil},
		{"other scheme", "docker-image://abc", g, "not an oci-layout", nil},
		{"other store", "oci-layout://xyz@" + l.root.String(), g, `"xyz"`, errdefs.ErrNotFound},
		{"missing content", "oci-layout://abc@" + missing, g, missing, errdefs.ErrNotFound},
		{"no session", "oci-layout://abc@" + missing, nil, "no active session", session.ErrNoSession},
		{"no content service", "oci-layout://abc@" + missing, sessiontest.Pair(t), "no active session", session.ErrNoSession},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := w.source.Pin(t.Context(), env(tt.g), source.Request{Identifier: tt.id, Platform: amd64})
			if err == nil || !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("got %v, want it to say %q", err, tt.want)
			}
		})
	}
}
