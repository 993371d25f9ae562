package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	digest "github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/images"
	"github.com/slipwaybuild/slipway/solver/progress"
	"github.com/slipwaybuild/slipway/solver/source"
	"github.com/slipwaybuild/slipway/solver/source/image"
	"github.com/slipwaybuild/slipway/solver/source/registry"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is an image source and all below it.
type world struct {
	t        testing.TB
	layers   *layers.Store
	images   *images.Store
	registry *registry.Registry
	source   *image.Source
}

func newWorld(t testing.TB, hosts map[string]registry.HostConfig) *world {
	t.Helper()
	w := &world{t: t}
	root := t.TempDir()
	var err error
	if w.layers, err = layers.Open(t.Context(), layers.Options{Root: root + "/layers", Realisation: "unpacked"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.closer("layers", w.layers))
	if w.images, err = images.Open(t.Context(), images.Options{Root: root + "/images", Layers: w.layers}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.closer("images", w.images))
	if w.registry, err = registry.New(registry.Options{Hosts: hosts, Backoff: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.closer("registry", w.registry))
	w.source = image.New(image.Options{Images: w.images, Layers: w.layers, Registry: w.registry})
	t.Cleanup(w.closer("source", w.source))
	return w
}

func (w *world) closer(name string, c io.Closer) func() {
	return func() {
		if err := c.Close(); err != nil {
			w.t.Errorf("close %s: %v", name, err)
		}
	}
}

func env(g *session.Group, p progress.Writer) source.Env {
	return source.Env{Sessions: func() *session.Group { return g }, Progress: p}
}

var amd64 = ocispecs.Platform{OS: "linux", Architecture: "amd64"}

func request(ref string, p ocispecs.Platform, attrs ...string) source.Request {
	r := source.Request{Identifier: "docker-image://" + ref, Platform: p, Attrs: map[string]string{}}
	for i := 0; i < len(attrs); i += 2 {
		r.Attrs[attrs[i]] = attrs[i+1]
	}
	return r
}

// fetch pins a request, takes hold of its layers and brings their bytes.
func (w *world) fetch(g *session.Group, r source.Request) ([]string, error) {
	w.t.Helper()
	ref, err := w.lazy(g, r)
	if err != nil {
		return nil, err
	}
	defer w.release(ref)
	if err := w.layers.Fetch(w.t.Context(), ref, w.source.Fetcher(func() *session.Group { return g }), nil); err != nil {
		return nil, err
	}
	return w.texts(ref), nil
}

func (w *world) lazy(g *session.Group, r source.Request) (*layers.Ref, error) {
	w.t.Helper()
	p, err := w.source.Pin(w.t.Context(), env(g, nil), r)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err := p.Close(); err != nil {
			w.t.Error(err)
		}
	}()
	return p.Fetch(w.t.Context(), env(g, nil))
}

func (w *world) release(r *layers.Ref) {
	w.t.Helper()
	if err := r.Release(); err != nil {
		w.t.Error(err)
	}
}

// texts returns what the one file of each layer holds.
func (w *world) texts(r *layers.Ref) []string {
	w.t.Helper()
	var out []string
	for i := range r.Layers() {
		f, _, err := w.layers.Tar(w.t.Context(), r, i)
		if err != nil {
			w.t.Fatal(err)
		}
		tr := tar.NewReader(f)
		if _, err := tr.Next(); err != nil {
			w.t.Fatal(err)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			w.t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			w.t.Error(err)
		}
		out = append(out, string(b))
	}
	return out
}

// maker makes images in memory.
type maker struct {
	t     testing.TB
	blobs map[digest.Digest][]byte
}

func newMaker(t testing.TB) *maker { return &maker{t: t, blobs: map[digest.Digest][]byte{}} }

func (m *maker) add(mediaType string, b []byte) ocispecs.Descriptor {
	d := digest.FromBytes(b)
	m.blobs[d] = b
	return ocispecs.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))}
}

func (m *maker) addJSON(mediaType string, v any) ocispecs.Descriptor {
	m.t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		m.t.Fatal(err)
	}
	return m.add(mediaType, b)
}

func (m *maker) ReaderAt(_ context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	b, ok := m.blobs[d.Digest]
	if !ok {
		return nil, errdefs.ErrNotFound
	}
	return memoryReader{bytes.NewReader(b)}, nil
}

// open is a manifest.Opener.
func (m *maker) open(_ context.Context, d ocispecs.Descriptor) (io.ReadCloser, error) {
	b, ok := m.blobs[d.Digest]
	if !ok {
		return nil, errdefs.ErrNotFound
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

type memoryReader struct{ *bytes.Reader }

func (r memoryReader) Size() int64  { return r.Reader.Size() }
func (r memoryReader) Close() error { return nil }

type layer struct {
	desc   ocispecs.Descriptor
	diffID digest.Digest
}

// layer makes a layer with one file, compressed as its media type says.
func (m *maker) layer(mediaType, text string) layer {
	m.t.Helper()
	var plain, packed bytes.Buffer
	tw := tar.NewWriter(&plain)
	m.must(tw.WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Size: int64(len(text))}))
	_, err := tw.Write([]byte(text))
	m.must(err)
	m.must(tw.Close())
	var cw io.WriteCloser
	switch mediaType {
	case ocispecs.MediaTypeImageLayerZstd:
		cw, err = zstd.NewWriter(&packed, zstd.WithEncoderConcurrency(1))
		m.must(err)
	case ocispecs.MediaTypeImageLayer:
		return layer{m.add(mediaType, plain.Bytes()), digest.FromBytes(plain.Bytes())}
	default:
		cw = gzip.NewWriter(&packed)
	}
	_, err = cw.Write(plain.Bytes())
	m.must(err)
	m.must(cw.Close())
	return layer{m.add(mediaType, packed.Bytes()), digest.FromBytes(plain.Bytes())}
}

func (m *maker) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

const gz = ocispecs.MediaTypeImageLayerGzip

// image makes a manifest.
func (m *maker) image(p ocispecs.Platform, layers ...layer) ocispecs.Descriptor {
	m.t.Helper()
	c := ocispecs.Image{Platform: p, RootFS: ocispecs.RootFS{Type: "layers"}}
	man := ocispecs.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest, Layers: []ocispecs.Descriptor{}}
	for _, l := range layers {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, l.diffID)
		man.Layers = append(man.Layers, l.desc)
	}
	man.Config = m.addJSON(ocispecs.MediaTypeImageConfig, c)
	d := m.addJSON(ocispecs.MediaTypeImageManifest, man)
	d.Platform = &p
	return d
}

func (m *maker) index(manifests ...ocispecs.Descriptor) ocispecs.Descriptor {
	m.t.Helper()
	return m.addJSON(ocispecs.MediaTypeImageIndex, ocispecs.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageIndex, Manifests: manifests,
	})
}

// push puts an image, with all that it refers to, in a registry.
func (w *world) push(m *maker, g *session.Group, ref string, d ocispecs.Descriptor) {
	w.t.Helper()
	r := w.registry.Resolver(registry.ResolverOptions{Sessions: func() *session.Group { return g }})
	var doc struct {
		Config            *ocispecs.Descriptor
		Layers, Manifests []ocispecs.Descriptor
	}
	if d.MediaType == ocispecs.MediaTypeImageIndex || d.MediaType == ocispecs.MediaTypeImageManifest {
		if err := json.Unmarshal(m.blobs[d.Digest], &doc); err != nil {
			w.t.Fatal(err)
		}
	}
	for _, child := range doc.Manifests {
		w.push(m, g, repository(ref)+"@"+child.Digest.String(), child)
	}
	children := doc.Layers
	if doc.Config != nil {
		children = append(children, *doc.Config)
	}
	for _, d := range append(children, d) {
		if err := r.Push(w.t.Context(), ref, m, d, nil); err != nil {
			w.t.Fatal(err)
		}
	}
}

// repository takes tag and digest from a reference.
func repository(ref string) string {
	for i := len(ref) - 1; ref[i] != '/'; i-- {
		if ref[i] == ':' || ref[i] == '@' {
			ref = ref[:i]
		}
	}
	return ref
}

// journal records progress.
type journal struct {
	mu       sync.Mutex
	statuses []progress.Status
	warnings []progress.Warning
}

func (j *journal) Status(s progress.Status) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.statuses = append(j.statuses, s)
}

func (j *journal) Warn(w progress.Warning) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.warnings = append(j.warnings, w)
}

func (j *journal) Log(int, []byte) {}
