package image_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/session/sessiontest"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/progress"
	"github.com/slipwaybuild/slipway/solver/source/image"
	"github.com/slipwaybuild/slipway/solver/source/image/manifest"
	"github.com/slipwaybuild/slipway/solver/source/registry"
	"github.com/slipwaybuild/slipway/solver/source/registry/registrytest"
)

func TestLayersStayAtTheRegistryUntilTheirBytesAreNeeded(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{})
	w, m := newWorld(t, nil), newMaker(t)
	ref := s.Host + "/app:1"
	w.push(m, nil, ref, m.image(amd64, m.layer(gz, "one"), m.layer(gz, "two")))
	s.Forget()
	r, err := w.lazy(nil, request(ref, amd64))
	if err != nil {
		t.Fatal(err)
	}
	defer w.release(r)
	if n := s.Count(http.MethodGet, "/blobs/"); n != 1 { // the config
		t.Errorf("%d blobs were fetched before anything was asked for, want the config alone: %+v", n, s.Requests())
	}
	for i, l := range r.Layers() {
		if l.Kind != layers.Remote {
			t.Errorf("layer %d is %s", i, l.Kind)
		}
	}
	s.Forget()
	got, err := w.fetch(nil, request(ref, amd64))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"one", "two"}; !slices.Equal(got, want) {
		t.Errorf("layers hold %q, want %q", got, want)
	}
	if n := s.Count(http.MethodGet, "/blobs/"); n != 2 {
		t.Errorf("%d blobs were fetched, want the 2 layers: %+v", n, s.Requests())
	}
}

// A build all of whose steps are cached asks for no layer, and yet learns where they are.
func TestPinningNotesWhereLayersAre(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{})
	w, m := newWorld(t, nil), newMaker(t)
	img := m.image(amd64, m.layer(gz, "one"))
	first, second := s.Host+"/first:1", s.Host+"/second:1"
	w.push(m, nil, first, img)
	w.push(m, nil, second, img)
	r, err := w.lazy(nil, request(first, amd64))
	if err != nil {
		t.Fatal(err)
	}
	defer w.release(r)
	if got := r.Layers()[0].Remote; got == nil || got.Ref != first {
		t.Fatalf("the layer is at %+v", got)
	}
	p, err := w.source.Pin(t.Context(), env(nil, nil), request(second, amd64))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if got := r.Layers()[0].Remote; got == nil || got.Ref != second {
		t.Errorf("after another name was pinned, the layer is at %+v", got)
	}
}

func TestKindsOfLayers(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{TLS: true})
	for _, mediaType := range []string{
		gz, ocispecs.MediaTypeImageLayerZstd, ocispecs.MediaTypeImageLayer,
		"application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
		"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
	} {
		t.Run(mediaType, func(t *testing.T) {
			w, m := newWorld(t, map[string]registry.HostConfig{s.Host: {CA: []string{s.CAFile}}}), newMaker(t)
			ref := s.Host + "/app:1"
			w.push(m, nil, ref, m.image(amd64, m.layer(mediaType, "text")))
			if got, err := w.fetch(nil, request(ref, amd64)); err != nil || !slices.Equal(got, []string{"text"}) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

func TestImageWithoutLayers(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{})
	w, m := newWorld(t, nil), newMaker(t)
	w.push(m, nil, s.Host+"/empty:1", m.image(amd64))
	if got, err := w.fetch(nil, request(s.Host+"/empty:1", amd64)); err != nil || len(got) != 0 {
		t.Errorf("%q, %v", got, err)
	}
}

func TestPlatforms(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{})
	w, m := newWorld(t, nil), newMaker(t)
	platform := func(arch, variant string) ocispecs.Platform {
		return ocispecs.Platform{OS: "linux", Architecture: arch, Variant: variant}
	}
	var manifests []ocispecs.Descriptor
	for _, p := range []ocispecs.Platform{platform("arm", "v6"), platform("arm64", "v8"), platform("amd64", ""), platform("arm", "v7")} {
		manifests = append(manifests, m.image(p, m.layer(gz, p.Architecture+p.Variant)))
	}
	attestation := m.image(ocispecs.Platform{OS: "unknown", Architecture: "unknown"})
	attestation.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	ref := s.Host + "/app:1"
	index := m.index(append(manifests, attestation)...)
	w.push(m, nil, ref, index)
	for _, tt := range []struct {
		p    ocispecs.Platform
		want string
	}{
		{amd64, "amd64"},
		{platform("x86_64", ""), "amd64"},
		{platform("arm64", ""), "arm64v8"},
		{platform("aarch64", "v8"), "arm64v8"},
		{platform("arm", ""), "armv7"},
		{platform("arm", "v7"), "armv7"},
		{platform("arm", "v6"), "armv6"},
	} {
		got, err := w.fetch(nil, request(ref, tt.p))
		if err != nil || !slices.Equal(got, []string{tt.want}) {
			t.Errorf("%v: %q, %v; want %s", tt.p, got, err, tt.want)
		}
	}
	_, err := w.fetch(nil, request(ref, platform("s390x", "")))
	var none *manifest.NoMatchError
	if !errors.As(err, &none) || !strings.Contains(err.Error(), "linux/s390x") || !strings.Contains(err.Error(), "linux/arm64") {
		t.Errorf("platform that is not there: %v", err)
	}
	c, err := w.source.ResolveConfig(t.Context(), env(nil, nil), ref, platform("arm", "v7"), image.Default)
	if err != nil {
		t.Fatal(err)
	}
	if c.Digest != index.Digest || c.Ref != ref || !strings.Contains(string(c.JSON), `"v7"`) {
		t.Errorf("config is %+v", c)
	}
}

func TestIndexThatDoesNotTellPlatforms(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{})
	w, m := newWorld(t, nil), newMaker(t)
	one := m.image(ocispecs.Platform{OS: "linux", Architecture: "arm64"}, m.layer(gz, "arm64"))
	two := m.image(amd64, m.layer(gz, "amd64"))
	one.Platform, two.Platform = nil, nil
	ref := s.Host + "/app:1"
	w.push(m, nil, ref, m.index(one, m.index(two)))
	if got, err := w.fetch(nil, request(ref, amd64)); err != nil || !slices.Equal(got, []string{"amd64"}) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestDigestThatIsHereNeedsNoNetwork(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{})
	w, m := newWorld(t, nil), newMaker(t)
	d := m.index(m.image(amd64, m.layer(gz, "text")))
	w.push(m, nil, s.Host+"/app:1", d)
	pinned := fmt.Sprintf("%s/app:1@%s", s.Host, d.Digest)
	if _, err := w.fetch(nil, request(pinned, amd64)); err != nil {
		t.Fatal(err)
	}
	if err := w.images.GC(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Close()
	for _, ref := range []string{pinned, fmt.Sprintf("%s/app@%s", s.Host, d.Digest)} {
		r, err := w.lazy(nil, request(ref, amd64, "image.resolvemode", "pull"))
		if err != nil {
			t.Errorf("%s: %v", ref, err)
			continue
		}
		w.release(r)
	}
}

func TestKey(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{})
	w, m := newWorld(t, nil), newMaker(t)
	ref := s.Host + "/app:1"
	one := m.image(amd64, m.layer(gz, "one"), m.layer(gz, "two"))
	w.push(m, nil, ref, m.index(one))
	key := func(attrs ...string) string {
		p, err := w.source.Pin(t.Context(), env(nil, nil), request(ref, amd64, attrs...))
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(p.Key())
	}
	first := key()
	if want := fmt.Sprintf("[{image %s} {platform linux/amd64}]", one.Digest); first != want {
		t.Errorf("key is %s, want %s", first, want)
	}
	if limited := key("image.layerlimit", "1"); limited == first {
		t.Error("the layer limit is not in the key")
	}
	if got, err := w.fetch(nil, request(ref, amd64, "image.layerlimit", "1")); err != nil || !slices.Equal(got, []string{"one"}) {
		t.Errorf("with a limit: %q, %v", got, err)
	}
	w.push(m, nil, ref, m.image(amd64, m.layer(gz, "three")))
	if key() == first {
		t.Error("the key did not follow the tag")
	}
}

func TestChecksum(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{})
	w, m := newWorld(t, nil), newMaker(t)
	ref := s.Host + "/app:1"
	d := m.image(amd64, m.layer(gz, "text"))
	w.push(m, nil, ref, d)
	if _, err := w.fetch(nil, request(ref, amd64, "image.checksum", d.Digest.String())); err != nil {
		t.Error(err)
	}
	other := digest.FromString("other")
	_, err := w.fetch(nil, request(ref, amd64, "image.checksum", other.String()))
	if want := fmt.Sprintf("image %s: image digest %s for %s does not match expected checksum %s", ref, d.Digest, ref, other); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestModes(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{})
	w, m := newWorld(t, nil), newMaker(t)
	ref := s.Host + "/app:1"
	w.push(m, nil, ref, m.image(amd64, m.layer(gz, "remote")))
	local := m.image(amd64, m.layer(ocispecs.MediaTypeImageLayer, "local"))
	w.load(m, ref, local)

	want := func(mode, text string) {
		t.Helper()
		if got, err := w.fetch(nil, request(ref, amd64, "image.resolvemode", mode)); err != nil || !slices.Equal(got, []string{text}) {
			t.Errorf("mode %q: %q, %v; want %q", mode, got, err, text)
		}
	}
	want("", "remote")
	want("default", "remote")
	want("pull", "remote")
	s.Forget()
	want("local", "local")
	if n := len(s.Requests()); n != 0 {
		t.Errorf("the registry was asked %d times for a local image", n)
	}
	if _, err := w.fetch(nil, request(ref, ocispecs.Platform{OS: "linux", Architecture: "arm64"}, "image.resolvemode", "often")); err == nil {
		t.Error("unknown mode is no error")
	}

	s.Close()
	want("default", "local")
	j := &journal{}
	if _, err := w.source.Pin(t.Context(), env(nil, j), request(ref, amd64)); err != nil {
		t.Fatal(err)
	}
	if len(j.warnings) != 1 || !strings.Contains(string(j.warnings[0].Short), "cannot be reached") {
		t.Errorf("warnings are %+v", j.warnings)
	}
	for _, st := range j.statuses[len(j.statuses)/2:] {
		if st.Completed == nil {
			t.Errorf("status is not completed: %+v", st)
		}
	}
	if _, err := w.fetch(nil, request(ref, amd64, "image.resolvemode", "pull")); !registry.IsUnreachable(err) {
		t.Errorf("mode pull without registry: %v", err)
	}
	if _, err := w.fetch(nil, request(s.Host+"/other:1", amd64)); !registry.IsUnreachable(err) || !strings.Contains(err.Error(), s.Host) {
		t.Errorf("unreachable, and not local: %v", err)
	}
}

// load puts an image in the image store, with its layers imported, as loading or building it would.
func (w *world) load(m *maker, name string, d ocispecs.Descriptor) {
	w.t.Helper()
	ctx, done, err := w.images.WithLease(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	img, err := manifest.Read(ctx, manifest.Through(w.images.Content(), m.open), d, amd64)
	if err != nil {
		w.t.Fatal(err)
	}
	var refs []*layers.Ref
	for _, l := range img.Layers {
		rc, err := m.open(ctx, l.Descriptor)
		if err != nil {
			w.t.Fatal(err)
		}
		r, err := w.layers.Import(ctx, rc, layers.ImportOptions{Want: l.DiffID})
		if err != nil {
			w.t.Fatal(err)
		}
		refs = append(refs, r)
	}
	if err := w.images.Put(ctx, name, d, refs...); err != nil {
		w.t.Fatal(err)
	}
	for _, r := range refs {
		w.release(r)
	}
	if err := done(ctx); err != nil {
		w.t.Fatal(err)
	}
}

func TestBrokenImages(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{})
	good := func(m *maker) layer { return m.layer(gz, "text") }
	for _, tt := range []struct {
		name  string
		make  func(m *maker) ocispecs.Descriptor
		fault func(m *maker) func(http.ResponseWriter, *http.Request) bool
		want  string
	}{
		{name: "corrupt gzip", want: "", make: func(m *maker) ocispecs.Descriptor {
			l := good(m)
			b := slices.Clone(m.blobs[l.desc.Digest])
			b[len(b)/2] ^= 0xff
			l.desc = m.add(gz, b)
			return m.image(amd64, l)
		}},
		{name: "wrong diffID", want: "", make: func(m *maker) ocispecs.Descriptor {
			l := good(m)
			l.diffID = digest.FromString("other")
			return m.image(amd64, l)
		}},
		{name: "bytes of another blob", want: "", make: func(m *maker) ocispecs.Descriptor { return m.image(amd64, good(m)) },
			fault: func(m *maker) func(http.ResponseWriter, *http.Request) bool {
				l := good(m)
				b := slices.Clone(m.blobs[l.desc.Digest])
				b[len(b)-1]++
				return answer(l.desc.Digest, b)
			}},
		{name: "missing blob", want: "not found", make: func(m *maker) ocispecs.Descriptor { return m.image(amd64, good(m)) },
			fault: func(m *maker) func(http.ResponseWriter, *http.Request) bool { return answer(good(m).desc.Digest, nil) }},
		{name: "config of other bytes", want: "wrong content", make: func(m *maker) ocispecs.Descriptor { return m.image(amd64) },
			fault: func(m *maker) func(http.ResponseWriter, *http.Request) bool {
				c := m.addJSON(ocispecs.MediaTypeImageConfig, ocispecs.Image{Platform: amd64, RootFS: ocispecs.RootFS{Type: "layers"}})
				return answer(c.Digest, []byte(strings.Replace(string(m.blobs[c.Digest]), "amd64", "arm64", 1)))
			}},
		{name: "counts that differ", want: "the manifest lists 1 layers, the config", make: func(m *maker) ocispecs.Descriptor {
			d := m.image(amd64, good(m))
			none := m.addJSON(ocispecs.MediaTypeImageConfig, ocispecs.Image{Platform: amd64})
			return m.add(d.MediaType, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[{"mediaType":%q,"digest":%q,"size":%d}]}`,
				d.MediaType, none.MediaType, none.Digest, none.Size, gz, good(m).desc.Digest, good(m).desc.Size))
		}},
		{name: "schema 1", want: "schema 1", make: func(m *maker) ocispecs.Descriptor { return m.image(amd64) },
			fault: func(*maker) func(http.ResponseWriter, *http.Request) bool {
				return manifestOf("application/vnd.docker.distribution.manifest.v1+prettyjws", `{"schemaVersion":1,"name":"app","tag":"1","fsLayers":[]}`)
			}},
		{name: "something else", want: "not a container image", make: func(m *maker) ocispecs.Descriptor { return m.image(amd64) },
			fault: func(*maker) func(http.ResponseWriter, *http.Request) bool {
				return manifestOf("application/json", `{"schemaVersion":2}`)
			}},
		{name: "layer of another kind", want: "layer 1 is content of type", make: func(m *maker) ocispecs.Descriptor {
			l := good(m)
			l.desc.MediaType = "application/wasm"
			return m.image(amd64, l)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, m := newWorld(t, nil), newMaker(t)
			ref := s.Host + "/" + strings.ReplaceAll(strings.ToLower(tt.name), " ", "-") + ":1"
			w.push(m, nil, ref, tt.make(m))
			if tt.fault != nil {
				s.Fault(tt.fault(m))
				defer s.Fault(nil)
			}
			got, err := w.fetch(nil, request(ref, amd64))
			if err == nil {
				t.Fatalf("no error, layers hold %q", got)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q does not say %q", err, tt.want)
			}
			t.Log(err)
		})
	}
}

// answer answers requests for a blob with these bytes, or 404.
func answer(d digest.Digest, b []byte) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, d.String()) {
			return false
		}
		if b == nil {
			http.NotFound(w, r)
			return true
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		_, _ = w.Write(b) // the client may have left
		return true
	}
}

// manifestOf answers all requests for manifests with a document.
func manifestOf(mediaType, doc string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/manifests/") {
			return false
		}
		w.Header().Set("Content-Type", mediaType)
		w.Header().Set("Docker-Content-Digest", digest.FromString(doc).String())
		w.Header().Set("Content-Length", fmt.Sprint(len(doc)))
		if r.Method == http.MethodGet {
			_, _ = w.Write([]byte(doc)) // the client may have left
		}
		return true
	}
}

func TestPrivateImages(t *testing.T) {
	accounts := map[string]string{"ann": "secret", "bob": "other"}
	s := registrytest.New(t, registrytest.Options{Auth: registrytest.Bearer, Accounts: accounts, Lifetime: 300})
	w, m := newWorld(t, nil), newMaker(t)
	client := &registrytest.Client{User: "ann", Password: "secret", HTTP: s.Client()}
	ann, nobody := sessiontest.Pair(t, client), sessiontest.Pair(t)
	ref := s.Host + "/private/app:1"
	w.push(m, ann, ref, m.image(amd64, m.layer(gz, "text")))
	if got, err := w.fetch(ann, request(ref, amd64)); err != nil || !slices.Equal(got, []string{"text"}) {
		t.Fatalf("%q, %v", got, err)
	}
	if n := client.CredentialsAsked.Load(); n != 0 {
		t.Errorf("the client was asked for its password %d times", n)
	}
	if _, err := w.lazy(nobody, request(ref, amd64)); !errors.Is(err, registry.ErrUnauthorized) {
		t.Errorf("without credentials: %v", err)
	}
	_, err := w.source.ResolveConfig(t.Context(), env(nobody, nil), ref, amd64, image.Default)
	if !errors.Is(err, registry.ErrUnauthorized) {
		t.Errorf("config without credentials: %v", err)
	}
}

func TestOneQuestionAtATime(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{})
	w, m := newWorld(t, nil), newMaker(t)
	ref := s.Host + "/app:1"
	w.push(m, nil, ref, m.image(amd64))
	s.Forget()
	const askers = 8
	var arrived atomic.Int64
	waiting := make(chan struct{})
	s.Fault(func(_ http.ResponseWriter, r *http.Request) bool {
		<-waiting
		return false
	})
	var wg sync.WaitGroup
	for range askers {
		wg.Go(func() {
			p := &countingSink{started: func() {
				if arrived.Add(1) == askers {
					close(waiting)
				}
			}}
			if _, err := w.source.ResolveConfig(t.Context(), env(nil, p), ref, amd64, image.Default); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	// All had begun before the registry answered anything; a straggler between its first status and the flight may ask again.
	if n := s.Count(http.MethodHead, "/manifests/"); n > 2 {
		t.Errorf("the registry was asked %d times by %d at once", n, askers)
	}
}

// countingSink calls started with the first status.
type countingSink struct {
	journal
	once    sync.Once
	started func()
}

func (c *countingSink) Status(s progress.Status) {
	c.once.Do(c.started)
	c.journal.Status(s)
}

func TestMissingLocalLayer(t *testing.T) {
	w := newWorld(t, nil)
	f := w.source.Fetcher(env(nil, nil).Sessions)
	_, err := f.Fetch(t.Context(), layers.RemoteBlob{Descriptor: ocispecs.Descriptor{Digest: digest.FromString("x"), Size: 1}})
	if !errdefs.IsNotFound(err) {
		t.Errorf("got %v, want not found", err)
	}
}
