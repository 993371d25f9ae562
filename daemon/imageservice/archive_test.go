package imageservice_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/klauspost/compress/zstd"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/daemon/imageservice"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/ulikunitz/xz"
)

// entry is a file of an archive, or a link.
type entry struct {
	name string
	data []byte
	link string
}

func archiveOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: e.name, Mode: 0o644, Size: int64(len(e.data))}
		if e.link != "" {
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// compress compresses with a writer of some kind.
func compress(t testing.TB, b []byte, with func(io.Writer) (io.WriteCloser, error)) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := with(&out)
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func gz(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }
func zst(w io.Writer) (io.WriteCloser, error) {
	return zstd.NewWriter(w)
}
func xzip(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) }

// save returns the archive of images.
func (w *world) save(names ...string) []byte {
	w.t.Helper()
	var b bytes.Buffer
	if err := w.Save(w.t.Context(), names, func() io.Writer { return &b }); err != nil {
		w.t.Fatal(err)
	}
	return b.Bytes()
}

// load puts an archive in and returns the names and ids that came.
func (w *world) load(b []byte) (out []string) {
	w.t.Helper()
	list, err := w.Load(w.t.Context(), bytes.NewReader(b), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, l := range list {
		out = append(out, l.Name+" "+l.ID.String())
	}
	return out
}

func filesOf(t testing.TB, b []byte) map[string]string {
	t.Helper()
	out := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := out[h.Name]; ok {
			t.Errorf("%s is in the archive twice", h.Name)
		}
		out[h.Name] = string(data)
	}
}

func TestSaveAndLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.build("a", at(1), "docker.io/library/a:1", "docker.io/library/a:2")
	b := w.build("b", at(2), "example.com/b:1")
	none := w.build("c", at(3))
	saved := w.save("a", "a:1", "example.com/b:1", none.id())
	files := filesOf(t, saved)
	for _, d := range []digest.Digest{a.target.Digest, a.config.Digest, digest.FromBytes(a.layer), digest.FromBytes(b.layer)} {
		if digest.FromString(files["blobs/sha256/"+d.Encoded()]) != d {
			t.Errorf("blob %s is wrong", d)
		}
	}
	if !strings.Contains(files["manifest.json"], `"RepoTags":["a:1","a:2"]`) {
		t.Errorf("%s", files["manifest.json"])
	}
	want := []string{"a:1 " + a.id(), "a:2 " + a.id(), "example.com/b:1 " + b.id(), " " + none.id()}
	for name, archive := range map[string][]byte{
		"plain": saved, "gzip": compress(t, saved, gz), "zstd": compress(t, saved, zst), "xz": compress(t, saved, xzip),
	} {
		other := newWorld(t)
		if got := other.load(archive); !slices.Equal(got, want) {
			t.Errorf("%s: loaded %q, want %q", name, got, want)
		}
		again := other.save("a", "example.com/b:1", none.id())
		if !bytes.Equal(again, saved) {
			t.Errorf("%s: what was loaded is saved in another way", name)
		}
	}
	if err := w.Save(t.Context(), []string{"a", "nosuch"}, func() io.Writer { t.Error("the answer has begun"); return io.Discard }); !errdefs.IsNotFound(err) {
		t.Errorf("%v", err)
	}
}

// legacy is an archive as docker save wrote them for years, and as skopeo still does.
func legacy(t testing.TB, layer []byte, link bool) ([]byte, digest.Digest) {
	t.Helper()
	config := asJSON(t, ocispecs.Image{
		Platform: ocispecs.Platform{OS: "linux", Architecture: "amd64"},
		RootFS:   ocispecs.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(tarOf(t, "f", "x"))}},
	})
	id := digest.FromBytes(config)
	manifest := asJSON(t, []map[string]any{{"Config": id.Encoded() + ".json", "RepoTags": []string{"old:1"}, "Layers": []string{"abc/layer.tar"}}})
	entries := []entry{{name: "abc/VERSION", data: []byte("1.0")}, {name: "abc/json", data: []byte("{}")}}
	if link {
		entries = append(entries, entry{name: "abc/layer.tar", link: "../def.tar"}, entry{name: "def.tar", data: layer})
	} else {
		entries = append(entries, entry{name: "abc/layer.tar", data: layer})
	}
	entries = append(entries, entry{name: id.Encoded() + ".json", data: config}, entry{name: "manifest.json", data: manifest},
		entry{name: "repositories", data: []byte("{}")})
	return archiveOf(t, entries...), id
}

func TestLoadDockerArchives(t *testing.T) {
	t.Parallel()
	layer := tarOf(t, "f", "x")
	for name, test := range map[string]struct {
		layer []byte
		link  bool
	}{"plain": {layer, false}, "link": {layer, true}, "compressed": {compress(t, layer, gz), true}} {
		w := newWorld(t)
		archive, id := legacy(t, test.layer, test.link)
		got := w.load(archive)
		if len(got) != 1 || !strings.HasPrefix(got[0], "old:1 ") {
			t.Fatalf("%s: %q", name, got)
		}
		d, err := w.Inspect(t.Context(), id.String()) // the config's digest, as docker calls it
		if err != nil || !slices.Equal(d.Tags, []string{"old:1"}) || d.Config.RootFS.DiffIDs[0] != digest.FromBytes(layer) {
			t.Errorf("%s: %+v %v", name, d, err)
		}
	}
}

// layout is an OCI layout of one image with a compressed layer, below an index that lists another platform, too.
func layout(t testing.TB, annotations map[string]string) ([]byte, ocispecs.Descriptor) {
	t.Helper()
	layer := tarOf(t, "f", "x")
	var entries []entry
	add := func(mediaType string, b []byte) ocispecs.Descriptor {
		d := ocispecs.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
		entries = append(entries, entry{name: "blobs/sha256/" + d.Digest.Encoded(), data: b})
		return d
	}
	config := add(ocispecs.MediaTypeImageConfig, asJSON(t, ocispecs.Image{
		Platform: ocispecs.Platform{OS: "linux", Architecture: "amd64"},
		RootFS:   ocispecs.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer)}},
	}))
	m := add(ocispecs.MediaTypeImageManifest, asJSON(t, ocispecs.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest, Config: config,
		Layers: []ocispecs.Descriptor{add(ocispecs.MediaTypeImageLayerGzip, compress(t, layer, gz))},
	}))
	m.Platform = &ocispecs.Platform{OS: "linux", Architecture: "amd64"}
	missing := m
	missing.Digest, missing.Platform = digest.FromString("elsewhere"), &ocispecs.Platform{OS: "linux", Architecture: "arm64"}
	top := add(ocispecs.MediaTypeImageIndex, asJSON(t, ocispecs.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageIndex, Manifests: []ocispecs.Descriptor{missing, m},
	}))
	named := top
	named.Annotations = annotations
	entries = append(entries, entry{name: "oci-layout", data: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		entry{name: "index.json", data: asJSON(t, ocispecs.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispecs.Descriptor{named}})})
	slices.Reverse(entries) // as some write them, and all may
	return archiveOf(t, entries...), top
}

func TestLoadLayouts(t *testing.T) {
	t.Parallel()
	for want, annotations := range map[string]map[string]string{
		"x/y:2":       {"io.containerd.image.name": "docker.io/x/y:2", "org.opencontainers.image.ref.name": "2"},
		"busybox:new": {"org.opencontainers.image.ref.name": "busybox:new"},
		"":            {"org.opencontainers.image.ref.name": "latest"},
	} {
		w := newWorld(t)
		archive, target := layout(t, annotations)
		if got := w.load(archive); !slices.Equal(got, []string{want + " " + target.Digest.String()}) {
			t.Errorf("%q, want %s", got, want)
		}
		// What is here of it can be read by builds, and goes out as it came.
		if again := newWorld(t).load(w.save(target.Digest.String())); len(again) != 1 || !strings.HasSuffix(again[0], target.Digest.String()) {
			t.Errorf("%q", again)
		}
	}
}

func TestBrokenArchivesAreRefused(t *testing.T) {
	t.Parallel()
	good, _ := layout(t, nil)
	layer := tarOf(t, "f", "x")
	other, _ := legacy(t, tarOf(t, "f", "another"), false)
	wrong := "blobs/sha256/" + digest.FromString("other").Encoded()
	index := func(d string) entry {
		return entry{name: "index.json", data: []byte(`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + d + `","size":1}]}`)}
	}
	w := newWorld(t)
	_, l := w.hub.Listen(time.Time{})
	defer l.Close()
	for name, b := range map[string][]byte{
		"text":                 []byte(strings.Repeat("this is no archive ", 100)),
		"nothing":              nil,
		"no entries":           archiveOf(t),
		"no images":            archiveOf(t, entry{name: "README", data: []byte("hello")}),
		"cut off":              good[:len(good)/2],
		"gzip cut off":         compress(t, good, gz)[:300],
		"wrong blob":           archiveOf(t, entry{name: wrong, data: []byte("{}")}),
		"wrong layer":          archiveOf(t, entry{name: wrong, data: layer}),
		"no manifest":          archiveOf(t, index(digest.FromString("m").String())),
		"no digest":            archiveOf(t, index("../../etc/passwd")),
		"another layer":        other,
		"manifest.json":        archiveOf(t, entry{name: "manifest.json", data: []byte(`[{"Config":"../../../etc/passwd","Layers":["x"]}]`)}),
		"manifest.json, null":  archiveOf(t, entry{name: "manifest.json", data: []byte(`[null]`)}),
		"links to each other":  archiveOf(t, entry{name: "manifest.json", link: "a"}, entry{name: "a", link: "manifest.json"}),
		"index that is a list": archiveOf(t, entry{name: "index.json", data: []byte(`[]`)}),
	} {
		if list, err := w.Load(t.Context(), bytes.NewReader(b), nil); !errdefs.IsInvalidArgument(err) || len(list) > 0 {
			t.Errorf("%s: %v %v", name, list, err)
		}
	}
	if got := heard(l); len(got) > 0 {
		t.Errorf("heard %q", got)
	}
	if list, err := w.List(t.Context(), imageservice.ListOptions{}); err != nil || len(list) > 0 {
		t.Errorf("%v %v", list, err)
	}
}

func TestImport(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	name, _ := reference.ParseNormalizedNamed("imported:1")
	layer := tarOf(t, "f", "x")
	id, err := w.Import(t.Context(), bytes.NewReader(compress(t, layer, gz)), imageservice.ImportOptions{
		Name: name, Message: "note", Config: ocispecs.ImageConfig{Cmd: []string{"x"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	d, err := w.Inspect(t.Context(), "imported:1")
	if err != nil || d.ID != id || d.Config.Config.Cmd[0] != "x" || d.Config.RootFS.DiffIDs[0] != digest.FromBytes(layer) || d.Config.History[0].Comment != "note" {
		t.Errorf("%+v %v", d, err)
	}
	if _, err := w.Import(t.Context(), strings.NewReader("no tar, surely"), imageservice.ImportOptions{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("%v", err)
	}
}

// FuzzLoad loads anything at all: it must end, with an error or with images that are whole, and leave no holds.
func FuzzLoad(f *testing.F) {
	good, _ := layout(f, nil)
	old, _ := legacy(f, tarOf(f, "f", "x"), true)
	for _, seed := range [][]byte{good, old, compress(f, old, gz), archiveOf(f), []byte("BZh9"), {0x28, 0xb5, 0x2f, 0xfd}} {
		f.Add(seed)
	}
	w := newWorld(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := w.Load(t.Context(), bytes.NewReader(b), nil)
		if err != nil {
			var full *layers.NoSpaceError
			if !errdefs.IsInvalidArgument(err) && !errors.As(err, &full) {
				t.Errorf("%v", err)
			}
			return
		}
		for _, l := range list {
			if err := w.Save(t.Context(), []string{l.ID.String()}, func() io.Writer { return io.Discard }); err != nil {
				t.Errorf("%v: %v", l, err)
			}
			if _, err := w.Remove(t.Context(), l.ID.String(), imageservice.RemoveOptions{Force: true}); err != nil && !errdefs.IsNotFound(err) {
				t.Error(fmt.Errorf("%v: %w", l, err))
			}
		}
	})
}
