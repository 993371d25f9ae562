package archive_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	containerdcontent "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	sessioncontent "github.com/moby/buildkit/session/content"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/exporter/archive"
	"github.com/slipwaybuild/slipway/exporter/internal/exportertest"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/decompress"
	"github.com/slipwaybuild/slipway/solver/layers/layerstest"
	"go.uber.org/goleak"
)

// The validator leaves a goroutine behind for every layer whose tar ends with more zeros than it reads.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/google/go-containerregistry/pkg/v1/validate.computeLayer.func1"))
}

// config is what a frontend says of [exportertest.Bench.Rich].
const config = `{"os":"linux","architecture":"amd64","config":{"Cmd":["/bin/tool"]},"history":[
	{"created":"2001-02-03T04:05:06Z","created_by":"base"},{"created_by":"ENV a=b","empty_layer":true},
	{"created":"2001-02-03T04:05:06Z","created_by":"over"},{"created_by":"RUN step"}]}`

// export runs an output and returns what the client got.
func export(t *testing.T, b *exportertest.Bench, typ string, a map[string]string, in exporter.Input) (*exportertest.File, map[string]string) {
	t.Helper()
	var f exportertest.File
	in.Sessions = b.Client(f.Target(3))
	answer, err := run(t.Context(), t, b, typ, a, in)
	if err != nil {
		t.Fatal(err)
	}
	if !f.Whole() {
		t.Error("the client does not know that it has everything")
	}
	if len(b.Content()) != 0 {
		t.Errorf("content is left: %v", b.Content())
	}
	return &f, answer
}

func run(ctx context.Context, t *testing.T, b *exportertest.Bench, typ string, a map[string]string, in exporter.Input) (map[string]string, error) {
	t.Helper()
	x, err := archive.New(b.Layers, b.Images, typ)(3, a)
	if err != nil {
		t.Fatal(err)
	}
	var p exportertest.Progress
	answer, err := x.Export(ctx, in, &p)
	if open := p.Open(); len(open) != 0 {
		t.Errorf("statuses without end: %v", open)
	}
	return answer, err
}

// unpack unpacks an archive into a directory.
func unpack(t *testing.T, data []byte) string {
	t.Helper()
	dir := t.TempDir()
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, filepath.FromSlash(h.Name))
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(to, 0o755)
		} else {
			var content []byte
			if content, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(to, content, 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// valid checks a layout with an image by its own claims, layers included, and returns the images in it.
func valid(t *testing.T, dir string) []v1.Image {
	t.Helper()
	idx, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	// It reads no layers: it knows none but gzipped ones.
	if err := validate.Index(idx, validate.Fast); err != nil {
		t.Error(err)
	}
	imgs := imagesOf(t, idx)
	for _, img := range imgs {
		checkLayers(t, img)
	}
	return imgs
}

// checkLayers compares the layers with what manifest and config say of them.
func checkLayers(t *testing.T, img v1.Image) {
	t.Helper()
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	ls, err := img.Layers()
	if err != nil || len(ls) != len(c.RootFS.DiffIDs) {
		t.Fatalf("%d layers for %d diffIDs, %v", len(ls), len(c.RootFS.DiffIDs), err)
	}
	for i, l := range ls {
		blob, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		outer := digest.Canonical.Digester()
		r, err := decompress.NewReader(io.TeeReader(blob, outer.Hash()))
		if err != nil {
			t.Fatal(err)
		}
		inner := digest.Canonical.Digester()
		if _, err := io.Copy(inner.Hash(), r); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(r.Close(), blob.Close()); err != nil {
			t.Fatal(err)
		}
		if d, err := l.Digest(); err != nil || d.String() != outer.Digest().String() {
			t.Errorf("layer %d: %s is called %s, %v", i, outer.Digest(), d, err)
		}
		if d := c.RootFS.DiffIDs[i]; d.String() != inner.Digest().String() {
			t.Errorf("layer %d: %s is called %s", i, inner.Digest(), d)
		}
	}
}

func imagesOf(t *testing.T, idx v1.ImageIndex) (found []v1.Image) {
	t.Helper()
	m, err := idx.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range m.Manifests {
		if d.MediaType.IsIndex() {
			child, err := idx.ImageIndex(d.Digest)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, imagesOf(t, child)...)
			continue
		}
		img, err := idx.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, img)
	}
	return found
}

func TestOCI(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	rich := b.Rich()
	for _, c := range []struct {
		compression, oci string
		mediaType        string
	}{
		{"", "true", ocispecs.MediaTypeImageLayerGzip},
		{"uncompressed", "true", ocispecs.MediaTypeImageLayer},
		{"gzip", "true", ocispecs.MediaTypeImageLayerGzip},
		{"zstd", "true", ocispecs.MediaTypeImageLayerZstd},
		{"gzip", "false", "application/vnd.docker.image.rootfs.diff.tar.gzip"},
	} {
		a := map[string]string{"name": "example.com/a/b:1,c", "compression": c.compression, "oci-mediatypes": c.oci}
		f, answer := export(t, b, archive.TypeOCI, a, exportertest.Input(rich, config, nil))
		imgs := valid(t, unpack(t, f.Bytes()))
		if len(imgs) != 2 {
			t.Fatalf("%d names in the index, want 2", len(imgs))
		}
		checkRich(t, imgs[0], c.mediaType)
		d, err := imgs[1].Digest()
		if err != nil || answer["containerimage.digest"] != d.String() {
			t.Errorf("answer %v for %v, %v", answer, d, err)
		}
		if id, err := imgs[0].ConfigName(); err != nil || answer["containerimage.config.digest"] != id.String() {
			t.Errorf("answer %v for config %v, %v", answer, id, err)
		}
		if want := "example.com/a/b:1,docker.io/library/c:latest"; answer["image.name"] != want || f.Metadata()["image.name"] != want {
			t.Errorf("names %q, client was told %q", answer["image.name"], f.Metadata()["image.name"])
		}
		checkDescriptor(t, answer)
	}
}

func checkRich(t *testing.T, img v1.Image, mediaType string) {
	t.Helper()
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(cfg.Config.Cmd, []string{"/bin/tool"}) || len(cfg.History) != 4 || !cfg.History[1].EmptyLayer || cfg.Created.IsZero() {
		t.Errorf("config %+v", cfg)
	}
	ls, err := img.Layers()
	if err != nil || len(ls) != 3 {
		t.Fatalf("%d layers, %v", len(ls), err)
	}
	for _, l := range ls {
		if mt, err := l.MediaType(); err != nil || string(mt) != mediaType {
			t.Errorf("media type %s, %v, want %s", mt, err, mediaType)
		}
	}
}

func checkDescriptor(t *testing.T, answer map[string]string) {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(answer["containerimage.descriptor"])
	if err != nil {
		t.Fatal(err)
	}
	var d ocispecs.Descriptor
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	if d.Digest.String() != answer["containerimage.digest"] || d.Annotations[ocispecs.AnnotationCreated] == "" {
		t.Errorf("descriptor %s", raw)
	}
}

func TestDocker(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	f, answer := export(t, b, archive.TypeDocker, map[string]string{"name": "x/y:1,z"}, exportertest.Input(b.Rich(), config, nil))
	path := filepath.Join(t.TempDir(), "image.tar")
	b.OK(os.WriteFile(path, f.Bytes(), 0o600))
	for _, n := range []string{"x/y:1", "z:latest"} {
		tag, err := name.NewTag(n)
		b.OK(err)
		img, err := tarball.ImageFromPath(path, &tag)
		b.OK(err)
		b.OK(validate.Image(img))
		if id, err := img.ConfigName(); err != nil || answer["containerimage.config.digest"] != id.String() {
			t.Errorf("config %v, %v, answer %v", id, err, answer)
		}
	}
	if imgs := valid(t, unpack(t, f.Bytes())); len(imgs) != 2 {
		t.Errorf("%d images in the layout", len(imgs))
	}
	_, err := run(t.Context(), t, b, archive.TypeDocker, nil, exportertest.Two(b.Rich(), b.Rich(), nil))
	if err == nil || !strings.Contains(err.Error(), "manifest lists") {
		t.Errorf("two platforms: %v", err)
	}
}

// The same result gives the same bytes, whatever the number of cores.
func TestReproducible(t *testing.T) {
	b := exportertest.New(t)
	rich := b.Rich()
	for _, how := range []string{"uncompressed", "gzip", "zstd"} {
		var sums []digest.Digest
		for _, procs := range []int{1, 2, 8, 1} {
			before := runtime.GOMAXPROCS(procs)
			f, _ := export(t, b, archive.TypeDocker, map[string]string{"name": "x", "compression": how}, exportertest.Input(rich, config, nil))
			runtime.GOMAXPROCS(before)
			sums = append(sums, digest.FromBytes(f.Bytes()))
		}
		if len(slices.Compact(sums)) != 1 {
			t.Errorf("%s: %v", how, sums)
		}
	}
}

func TestNothing(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	for _, cfg := range []string{"", `{"os":"linux","architecture":"amd64","history":[{"created_by":"ENV","empty_layer":true}]}`} {
		f, _ := export(t, b, archive.TypeDocker, nil, exportertest.Input(b.Stack(), cfg, nil))
		imgs := valid(t, unpack(t, f.Bytes()))
		if len(imgs) != 1 {
			t.Fatalf("%d images", len(imgs))
		}
		if ls, err := imgs[0].Layers(); err != nil || len(ls) != 0 {
			t.Errorf("%d layers, %v", len(ls), err)
		}
	}
}

// A step that changed nothing leaves a history entry and no layer.
func TestStepWithoutChange(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	base := b.Layer("base", layerstest.Text("a", "1"))
	step := b.Step(base, "RUN true", func(string) {})
	last := b.Layer("COPY", layerstest.Text("b", "1"))
	const cfg = `{"os":"linux","architecture":"amd64","history":[{"created_by":"FROM"},{"created_by":"RUN true"},{"created_by":"COPY"}]}`
	f, _ := export(t, b, archive.TypeOCI, nil, exportertest.Input(b.Stack(base, step, last), cfg, nil))
	img := valid(t, unpack(t, f.Bytes()))[0]
	c, err := img.ConfigFile()
	b.OK(err)
	if len(c.RootFS.DiffIDs) != 2 || len(c.History) != 3 || !c.History[1].EmptyLayer || c.History[2].EmptyLayer {
		t.Errorf("%+v", c)
	}
}

func TestTwoPlatforms(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	in := exportertest.Two(b.Layer("a", layerstest.Text("a", "1")), b.Layer("b", layerstest.Text("b", "1")), nil)
	in.Metadata = map[string][]byte{"annotation[linux/arm64].who": []byte("frontend"), "image.name": []byte("chosen")}
	f, answer := export(t, b, archive.TypeOCI, map[string]string{
		"name": "*", "annotation.who": "all", "annotation-index.what": "list", "annotation-manifest-descriptor[linux/amd64].d": "1",
	}, in)
	dir := unpack(t, f.Bytes())
	imgs := valid(t, dir)
	if len(imgs) != 2 {
		t.Fatalf("%d images", len(imgs))
	}
	for i, want := range []string{"all", "frontend"} {
		if m, err := imgs[i].Manifest(); err != nil || m.Annotations["who"] != want {
			t.Errorf("annotations %v, %v, want %s", m.Annotations, err, want)
		}
	}
	if _, ok := answer["containerimage.config.digest"]; ok || answer["image.name"] != "docker.io/library/chosen:latest" {
		t.Errorf("answer %v", answer)
	}
	idx, err := layout.ImageIndexFromPath(dir)
	b.OK(err)
	d, err := v1.NewHash(answer["containerimage.digest"])
	b.OK(err)
	list, err := idx.ImageIndex(d)
	b.OK(err)
	m, err := list.IndexManifest()
	b.OK(err)
	if m.Annotations["what"] != "list" || m.Manifests[0].Annotations["d"] != "1" || m.Manifests[1].Platform.Architecture != "arm64" {
		t.Errorf("index %+v", m)
	}
}

// What came from elsewhere is in the archive as it came, whether it is here or not; it is made anew if it cannot be had like that, or
// if the client says so.
func TestLayersStayAsTheyCame(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	base, blobs := b.Remote("registry.example/base:1", layerstest.Text("a", "1"))
	came := base.Layers()[0].Remote.Descriptor.Digest.String()
	in := exportertest.Input(base, "", nil)
	in.Fetcher = blobs
	digestOf := func(typ string, a map[string]string) string {
		f, _ := export(t, b, typ, a, in)
		ls, err := valid(t, unpack(t, f.Bytes()))[0].Layers()
		if err != nil || len(ls) != 1 {
			t.Fatalf("%d layers, %v", len(ls), err)
		}
		d, err := ls[0].Digest()
		b.OK(err)
		return d.String()
	}
	for _, typ := range []string{archive.TypeOCI, archive.TypeDocker} {
		if d := digestOf(typ, nil); d != came {
			t.Errorf("%s: layer %s, it came as %s", typ, d, came)
		}
	}
	if n := blobs.Fetched(); n != 2 || base.Layers()[0].Kind != layers.Remote {
		t.Errorf("fetched %d times, and unpacked to %s", n, base.Layers()[0].Kind)
	}
	b.OK(b.Layers.Fetch(t.Context(), base, blobs, nil))
	if d := digestOf(archive.TypeOCI, map[string]string{"compression": "zstd"}); d != came {
		t.Errorf("once unpacked: layer %s, it came as %s", d, came)
	}
	if d := digestOf(archive.TypeOCI, map[string]string{"force-compression": "true"}); d == came {
		t.Error("was not compressed anew")
	}
	in.Fetcher = &exportertest.Blobs{}
	if d := digestOf(archive.TypeOCI, nil); d == came {
		t.Error("is as it came, though it cannot be had")
	}
}

func TestEpoch(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	in := exportertest.Input(b.Rich(), config, nil)
	n := int64(5)
	in.SourceDateEpoch = &n
	f, _ := export(t, b, archive.TypeOCI, map[string]string{"source-date-epoch": "100"}, in)
	c, err := valid(t, unpack(t, f.Bytes()))[0].ConfigFile()
	b.OK(err)
	if c.Created.Unix() != 100 {
		t.Errorf("created %v", c.Created)
	}
	for _, h := range c.History {
		if h.Created.Unix() != 100 {
			t.Errorf("history %+v", h)
		}
	}
}

// With tar=false the image goes into the client's content store, and what is there already does not go again.
func TestDirectory(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	dir := t.TempDir()
	store, err := local.NewStore(dir)
	b.OK(err)
	in := exportertest.Input(b.Rich(), config, nil)
	in.Sessions = b.Client(sessioncontent.NewAttachable(map[string]containerdcontent.Store{"export": store}))
	for range 2 {
		answer, err := run(t.Context(), t, b, archive.TypeOCI, map[string]string{"tar": "false", "name": "x", "compression": "gzip"}, in)
		b.OK(err)
		raw, err := base64.StdEncoding.DecodeString(answer["containerimage.descriptor"])
		b.OK(err)
		b.OK(os.WriteFile(filepath.Join(dir, "index.json"), []byte(`{"schemaVersion":2,"manifests":[`+string(raw)+`]}`), 0o600))
		b.OK(os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o600))
		checkRich(t, valid(t, dir)[0], ocispecs.MediaTypeImageLayerGzip)
	}
}

func TestClientGoesAway(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	noise := layerstest.Text("noise", strings.Repeat("0123456789abcdef", 1<<18))
	f := exportertest.File{Refuse: errors.New("disk full"), Limit: 2 << 20}
	in := exportertest.Input(b.Layer("noise", noise), "", b.Client(f.Target(3)))
	_, err := run(t.Context(), t, b, archive.TypeDocker, map[string]string{"compression": "uncompressed"}, in)
	if err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("got %v", err)
	}
	if f.Whole() {
		t.Error("the client believes that the file is whole")
	}
}

var errEnough = errors.New("enough")

func TestCancelled(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	var f exportertest.File
	in := exportertest.Input(b.Rich(), config, b.Client(f.Target(3)))
	cancel(errEnough)
	if _, err := run(ctx, t, b, archive.TypeOCI, map[string]string{"compression": "gzip"}, in); !errors.Is(err, errEnough) && !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if f.Opened() && f.Whole() {
		t.Error("the client believes that the file is whole")
	}
	if left := b.Content(); len(left) != 0 {
		t.Errorf("content is left: %v", left)
	}
}

func TestNobodyTakesIt(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	in := exportertest.Input(b.Rich(), config, b.Client())
	if _, err := run(t.Context(), t, b, archive.TypeOCI, nil, in); err == nil || !strings.Contains(err.Error(), "not supported by the client") {
		t.Errorf("got %v", err)
	}
}

func TestAttributesRefused(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	for _, a := range []map[string]string{
		{"name": "UPPER"}, {"tar": "perhaps"}, {"compression": "rar"}, {"oci-mediatypes": "x"}, {"rewrite-timestamp": "perhaps"},
	} {
		if _, err := archive.New(b.Layers, b.Images, archive.TypeOCI)(0, a); err == nil {
			t.Errorf("%v: no error", a)
		}
	}
}
