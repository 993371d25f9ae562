package image_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/exporter/image"
	"github.com/slipwaybuild/slipway/exporter/internal/exportertest"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/images"
	"github.com/slipwaybuild/slipway/solver/layers/layerstest"
	"github.com/slipwaybuild/slipway/solver/source/oci"
	"github.com/slipwaybuild/slipway/solver/source/registry"
	"github.com/slipwaybuild/slipway/solver/source/registry/registrytest"
	"go.uber.org/goleak"
)

// The validator leaves a goroutine behind for every layer whose tar ends with more zeros than it reads; idle connections of its
// client end by themselves.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/google/go-containerregistry/pkg/v1/validate.computeLayer.func1"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}

func options(t *testing.T, b *exportertest.Bench) image.Options {
	t.Helper()
	reg, err := registry.New(registry.Options{Backoff: time.Millisecond})
	b.OK(err)
	t.Cleanup(func() { b.OK(reg.Close()) })
	return image.Options{Layers: b.Layers, Images: b.Images, Registry: func(s func() *session.Group, insecure bool) remotes.Resolver {
		return reg.Resolver(registry.ResolverOptions{Sessions: s, Insecure: insecure})
	}}
}

func run(ctx context.Context, t *testing.T, o image.Options, moby bool, a map[string]string, in exporter.Input) (map[string]string, error) {
	t.Helper()
	x, err := image.New(o, moby)(0, a)
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

func export(t *testing.T, o image.Options, a map[string]string, in exporter.Input) map[string]string {
	t.Helper()
	answer, err := run(t.Context(), t, o, false, a, in)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func names(t *testing.T, b *exportertest.Bench) (list []string) {
	t.Helper()
	all, err := b.Images.List(t.Context())
	b.OK(err)
	for _, i := range all {
		list = append(list, i.Name)
	}
	slices.Sort(list)
	return list
}

func read[T any](t *testing.T, b *exportertest.Bench, d ocispecs.Descriptor) (v T) {
	t.Helper()
	raw, err := content.ReadBlob(t.Context(), b.Images.Content(), d)
	b.OK(err)
	b.OK(json.Unmarshal(raw, &v))
	return v
}

func TestNames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		a    map[string]string
		want []string // D is the digest
		said string
	}{
		{"none", nil, []string{images.Dangling("D")}, ""},
		{"two", map[string]string{"name": "a:1,example.com/b"}, []string{"docker.io/library/a:1", "example.com/b:latest"}, "docker.io/library/a:1,example.com/b:latest"},
		{"the frontend's", map[string]string{"name": "*"}, []string{"docker.io/library/chosen:latest"}, "docker.io/library/chosen:latest"},
		{"canonical", map[string]string{"name": "localhost:5000/a:1", "name-canonical": ""}, []string{"localhost:5000/a:1", "localhost:5000/a@D"}, "localhost:5000/a:1"},
		{"prefix", map[string]string{"name": "a:1", "dangling-name-prefix": "p"}, []string{"docker.io/library/a:1", "p@D"}, "docker.io/library/a:1,p@D"},
		{"prefix if empty, and it is", map[string]string{"dangling-name-prefix": "p", "danging-name-empty-only": "true"}, []string{"p@D"}, "p@D"},
		{"prefix if empty, and it is not", map[string]string{"name": "a:1", "dangling-name-prefix": "p", "danging-name-empty-only": "true"}, []string{"docker.io/library/a:1"}, "docker.io/library/a:1"},
		{"not stored", map[string]string{"name": "a:1", "store": "false"}, nil, "docker.io/library/a:1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := exportertest.New(t)
			in := exportertest.Input(b.Layer("x", layerstest.Text("a", "1")), "", nil)
			in.Metadata = map[string][]byte{"image.name": []byte("chosen")}
			answer := export(t, options(t, b), c.a, in)
			var want []string
			for _, w := range c.want {
				want = append(want, strings.ReplaceAll(w, "D", answer["containerimage.digest"]))
			}
			slices.Sort(want)
			if got := names(t, b); !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			if said := strings.ReplaceAll(c.said, "D", answer["containerimage.digest"]); answer["image.name"] != said {
				t.Errorf("said %q, want %q", answer["image.name"], said)
			}
		})
	}
}

// Nothing but config and manifest is written for the local store; the layers are held where they are.
func TestStore(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	rich := b.Rich()
	want := b.Snapshot(rich)
	answer := export(t, options(t, b), map[string]string{"name": "x"}, exportertest.Input(rich, "", nil))
	img, err := b.Images.Get(t.Context(), "docker.io/library/x:latest")
	b.OK(err)
	if img.Target.Digest.String() != answer["containerimage.digest"] {
		t.Errorf("answer %v, stored %v", answer, img.Target)
	}
	m := read[ocispecs.Manifest](t, b, img.Target)
	held := slices.Sorted(maps.Keys(b.Content()))
	expected := []string{img.Target.Digest.String(), m.Config.Digest.String()}
	slices.Sort(expected)
	if !slices.Equal(held, expected) {
		t.Errorf("content %v, want %v", held, expected)
	}
	for _, l := range m.Layers {
		if l.MediaType != ocispecs.MediaTypeImageLayer {
			t.Errorf("layer %+v", l)
		}
		ra, err := b.Images.Provider().ReaderAt(t.Context(), l)
		b.OK(err)
		if ra.Size() != l.Size {
			t.Errorf("%d bytes of %+v", ra.Size(), l)
		}
		b.OK(ra.Close())
	}
	// The build lets go; the image holds.
	b.OK(rich.Release())
	b.OK(b.Layers.Prune(t.Context(), layers.PruneOptions{All: true}, func(layers.Usage) {}))
	again, err := b.Images.Layers(t.Context(), m, read[ocispecs.Image](t, b, m.Config))
	again = b.Own(again, err)
	if got := b.Snapshot(again); !maps.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

func TestMobyNamesByConfig(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	in := exportertest.Input(b.Layer("x", layerstest.Text("a", "1")), "", nil)
	answer, err := run(t.Context(), t, options(t, b), true, map[string]string{"name": "x"}, in)
	b.OK(err)
	if answer["containerimage.digest"] != answer["containerimage.config.digest"] || answer["containerimage.digest"] == "" {
		t.Errorf("answer %v", answer)
	}
}

func TestTaggedAwayImageDangles(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	o := options(t, b)
	first := export(t, o, map[string]string{"name": "x"}, exportertest.Input(b.Layer("x", layerstest.Text("a", "1")), "", nil))
	export(t, o, map[string]string{"name": "x"}, exportertest.Input(b.Layer("x", layerstest.Text("a", "2")), "", nil))
	if got := names(t, b); !slices.Contains(got, "dangling@"+first["containerimage.digest"]) || len(got) != 2 {
		t.Errorf("names %v", got)
	}
}

// Layers at a registry are named as they are there, and not brought, whether or not they are here.
func TestLazyLayersStayLazy(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	o := options(t, b)
	base, blobs := b.Remote("registry.example/base:1", layerstest.Text("a", "1"))
	over := b.Layer("over", layerstest.Text("b", "1"))
	in := exportertest.Input(b.Stack(base, over), "", nil)
	in.Fetcher = blobs
	lazy := export(t, o, map[string]string{"name": "x"}, in)
	if blobs.Fetched() != 0 {
		t.Error("a layer was brought that nobody reads")
	}
	img, err := b.Images.Get(t.Context(), "docker.io/library/x:latest")
	b.OK(err)
	m := read[ocispecs.Manifest](t, b, img.Target)
	if m.Layers[0].MediaType != ocispecs.MediaTypeImageLayerGzip || m.Layers[0].Digest != base.Layers()[0].Remote.Descriptor.Digest {
		t.Errorf("layers %+v", m.Layers)
	}
	b.OK(b.Layers.Fetch(t.Context(), base, blobs, &exportertest.Progress{}))
	if here := export(t, o, map[string]string{"name": "x"}, in); here["containerimage.digest"] != lazy["containerimage.digest"] {
		t.Errorf("the image is %v once its base is here, and was %v", here, lazy)
	}
}

// What only the client has is brought while it is there.
func TestLayersOfTheClientAreFetched(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	base, blobs := b.Remote(oci.Ref("store"), layerstest.Text("a", "1"))
	in := exportertest.Input(base, "", nil)
	in.Fetcher = blobs
	export(t, options(t, b), map[string]string{"name": "x"}, in)
	if blobs.Fetched() != 1 || base.Layers()[0].Kind == layers.Remote {
		t.Errorf("fetched %d times, is %+v", blobs.Fetched(), base.Layers()[0])
	}
}

func pull(t *testing.T, ref string) v1.Image {
	t.Helper()
	r, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img); err != nil {
		t.Error(err)
	}
	return img
}

func TestPush(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	o := options(t, b)
	s := registrytest.New(t, registrytest.Options{})
	in := exportertest.Input(b.Rich(), "", nil)
	a := map[string]string{"name": s.Host + "/a:1," + s.Host + "/a:2", "push": "true"}
	answer := export(t, o, a, in)
	for _, tag := range []string{":1", ":2"} {
		if d, err := pull(t, s.Host+"/a"+tag).Digest(); err != nil || d.String() != answer["containerimage.digest"] {
			t.Errorf("%v, %v, answer %v", d, err, answer)
		}
	}
	if n := s.Count(http.MethodPost, "/blobs/uploads"); n != 4 {
		t.Errorf("%d uploads for three layers and a config", n)
	}
	s.Forget()
	if again := export(t, o, a, in); again["containerimage.digest"] != answer["containerimage.digest"] {
		t.Errorf("second export is %v, was %v", again, answer)
	}
	if n := s.Count(http.MethodPost, "/blobs/uploads"); n != 0 {
		t.Errorf("%d uploads of what is there", n)
	}
	if len(b.Content()) != 5 {
		t.Errorf("content %v, want three layers, config and manifest", b.Content())
	}
}

func TestPushByDigestWithoutStore(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	s := registrytest.New(t, registrytest.Options{})
	answer := export(t, options(t, b), map[string]string{"name": s.Host + "/a", "push": "", "push-by-digest": "", "store": "false"},
		exportertest.Input(b.Layer("x", layerstest.Text("a", "1")), "", nil))
	pull(t, s.Host+"/a@"+answer["containerimage.digest"])
	if s.Count("", "/manifests/latest") != 0 {
		t.Error("a tag was touched")
	}
	if len(names(t, b)) != 0 || len(b.Content()) != 0 {
		t.Errorf("something was stored: %v, %v", names(t, b), b.Content())
	}
}

func TestPushIndex(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	s := registrytest.New(t, registrytest.Options{})
	in := exportertest.Two(b.Layer("a", layerstest.Text("a", "1")), b.Layer("b", layerstest.Text("b", "1")), nil)
	for _, oci := range []string{"true", "false"} {
		answer := export(t, options(t, b), map[string]string{"name": s.Host + "/a:1", "push": "true", "oci-mediatypes": oci}, in)
		r, err := name.ParseReference(s.Host + "/a:1")
		b.OK(err)
		idx, err := remote.Index(r)
		b.OK(err)
		b.OK(validate.Index(idx))
		if d, err := idx.Digest(); err != nil || d.String() != answer["containerimage.digest"] {
			t.Errorf("%v, %v, answer %v", d, err, answer)
		}
	}
}

// A lazy layer goes from repository to repository inside the registry, or through here, and never into the layer store.
func TestPushLazyLayer(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	o := options(t, b)
	s, other := registrytest.New(t, registrytest.Options{}), registrytest.New(t, registrytest.Options{})
	made := b.Layer("base", layerstest.Text("a", strings.Repeat("x", 1<<16)))
	export(t, o, map[string]string{"name": s.Host + "/base:1", "push": "true"}, exportertest.Input(made, "", nil))
	base, blobs := b.Remote(s.Host+"/base:1", layerstest.Text("b", "lazy"))
	seed(t, s.Host+"/base", base, blobs)

	in := exportertest.Input(base, "", nil)
	in.Fetcher = blobs
	s.Forget()
	// This registry has one store for all repositories and mounts nothing; others have one each.
	s.Fault(func(w http.ResponseWriter, r *http.Request) bool {
		switch q := r.URL.Query(); {
		case r.Method == http.MethodHead && strings.HasPrefix(r.URL.Path, "/v2/app/blobs/"):
			w.WriteHeader(http.StatusNotFound)
		case q.Get("mount") != "" && q.Get("from") == "base":
			w.Header().Set("Location", "/v2/app/blobs/"+q.Get("mount"))
			w.WriteHeader(http.StatusCreated)
		default:
			return false
		}
		return true
	})
	export(t, o, map[string]string{"name": s.Host + "/app:1", "push": "true", "store": "false"}, in)
	s.Fault(nil)
	if blobs.Fetched() != 0 {
		t.Error("a layer was brought here that the registry had")
	}
	pull(t, s.Host+"/app:1")
	mounted := slices.ContainsFunc(s.Requests(), func(r registrytest.Request) bool {
		return r.Method == http.MethodPost && strings.Contains(r.Query, "from=base") && strings.Contains(r.Query, "mount=sha256")
	})
	if !mounted {
		t.Errorf("no mount in %v", s.Requests())
	}
	export(t, o, map[string]string{"name": other.Host + "/app:1", "push": "true", "store": "false"}, in)
	pull(t, other.Host+"/app:1")
	if blobs.Fetched() == 0 || base.Layers()[0].Kind != layers.Remote {
		t.Errorf("fetched %d times, is %+v", blobs.Fetched(), base.Layers()[0])
	}
}

// seed puts a lazy layer into a registry.
func seed(t *testing.T, repo string, ref *layers.Ref, blobs *exportertest.Blobs) {
	t.Helper()
	r, err := name.NewRepository(repo)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteLayer(r, blobs.Layer(t, *ref.Layers()[0].Remote)); err != nil {
		t.Fatal(err)
	}
}

func TestPushBeginsAgain(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	s := registrytest.New(t, registrytest.Options{})
	var tried atomic.Int32
	s.Fault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/blobs/uploads/") && tried.Add(1) <= 2 {
			w.WriteHeader(http.StatusBadGateway)
			return true
		}
		return false
	})
	export(t, options(t, b), map[string]string{"name": s.Host + "/a:1", "push": "true"}, exportertest.Input(b.Layer("x", layerstest.Text("a", "1")), "", nil))
	s.Fault(nil)
	pull(t, s.Host+"/a:1")
	if n := tried.Load(); n <= 2 {
		t.Errorf("tried %d times", n)
	}
}

func TestPushRefused(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	o := options(t, b)
	in := exportertest.Input(b.Layer("x", layerstest.Text("a", "1")), "", nil)
	s := registrytest.New(t, registrytest.Options{})
	s.Fault(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusForbidden)
		return true
	})
	if _, err := run(t.Context(), t, o, false, map[string]string{"name": s.Host + "/a:1", "push": "true"}, in); err == nil || !strings.Contains(err.Error(), "failed to push "+s.Host+"/a:1") {
		t.Errorf("got %v", err)
	}
	if _, err := run(t.Context(), t, o, false, map[string]string{"push": "true"}, in); err == nil {
		t.Error("pushed without a name")
	}
	o.Registry = nil
	if _, err := image.New(o, false)(0, map[string]string{"push": "true", "name": "x"}); err == nil {
		t.Error("pushing without a registry client")
	}
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	s := registrytest.New(t, registrytest.Options{})
	s.Fault(func(_ http.ResponseWriter, r *http.Request) bool {
		cancel()
		<-r.Context().Done() // never answers
		return true
	})
	in := exportertest.Input(b.Layer("x", layerstest.Text("a", "1")), "", nil)
	_, err := run(ctx, t, options(t, b), false, map[string]string{"name": s.Host + "/a:1", "push": "true", "store": "false"}, in)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if left := b.Content(); len(left) != 0 {
		t.Errorf("content is left: %v", left)
	}
}

func TestAttributesRefused(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	o := options(t, b)
	for _, a := range []map[string]string{
		{"name": "UPPER"}, {"push": "perhaps"}, {"store": "x"}, {"compression": "rar"}, {"rewrite-timestamp": "perhaps"},
		{"compression": "estargz", "oci-mediatypes": "false"},
	} {
		if _, err := image.New(o, false)(0, a); err == nil {
			t.Errorf("%v: no error", a)
		}
	}
	for _, a := range []map[string]string{{"unpack": "true"}, {"buildinfo": "x"}, {"rewrite-timestamp": "false"}} {
		if _, err := image.New(o, false)(0, a); err != nil {
			t.Errorf("%v: %v", a, err)
		}
	}
}
