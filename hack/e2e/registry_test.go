package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/compression"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	ggcrtar "github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/slipwaybuild/slipway/solver/source/registry/registrytest"
)

// imageOf makes an image of layers.
func imageOf(t testing.TB, layers ...v1.Layer) v1.Image { return imageFor(t, "amd64", layers...) }

func imageFor(t testing.TB, arch string, layers ...v1.Layer) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		t.Fatal(err)
	}
	cf, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture = "linux", arch
	cf.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	if img, err = mutate.ConfigFile(img, cf); err != nil {
		t.Fatal(err)
	}
	return img
}

// tag parses the name of an image.
func tag(t testing.TB, ref string) name.Reference {
	t.Helper()
	r, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// pushImage puts an image into a registry as a tool other than ours does, and returns its digest.
func pushImage(t testing.TB, ref string, img v1.Image, auth ...authn.Authenticator) string {
	t.Helper()
	options := []remote.Option{remote.WithAuth(authn.Anonymous)}
	if len(auth) > 0 {
		options = []remote.Option{remote.WithAuth(auth[0])}
	}
	if err := remote.Write(tag(t, ref), img, options...); err != nil {
		t.Fatalf("push %s: %v", ref, err)
	}
	return digestOf(t, img)
}

func digestOf(t testing.TB, of interface{ Digest() (v1.Hash, error) }) string {
	t.Helper()
	h, err := of.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

// pulled is an image as the registry has it, checked for being whole.
func pulled(t testing.TB, ref string) v1.Image {
	t.Helper()
	img, err := remote.Image(tag(t, ref))
	if err != nil {
		t.Fatalf("pull %s: %v", ref, err)
	}
	if err := validate.Image(img); err != nil {
		t.Errorf("%s: %v", ref, err)
	}
	return img
}

func TestLayersStayAtTheRegistryUntilNeeded(t *testing.T) {
	d := startDaemon(t)
	r := registrytest.New(t, registrytest.Options{})
	l := layerOf(t, tarOf(t, tarReg("f", "in the base")))
	pushImage(t, r.Host+"/base:1", imageOf(t, l))
	blob := "/blobs/" + digestOf(t, l)
	src := write(t, map[string]string{"Dockerfile": "FROM " + r.Host + "/base:1\nLABEL a=b\n"})
	r.Forget()
	d.build("-t", "example.com/lazy:1", src)
	if n := r.Count(http.MethodGet, blob); n != d.broughtFor(1) {
		t.Errorf("the layer was fetched %d times for an image that stays here", n)
	}
	// What is built on it needs the files.
	next := write(t, map[string]string{"Dockerfile": "FROM example.com/lazy:1\nCOPY --from=example.com/lazy:1 /f /copy\n"})
	out := t.TempDir()
	d.build("-o", out, next)
	if got := read(t, out, "copy") + read(t, out, "f"); got != "in the basein the base" {
		t.Errorf("got %q", got)
	}
	if n := r.Count(http.MethodGet, blob); n != 1 {
		t.Errorf("the layer was fetched %d times, want once", n)
	}
}

func TestLayersInEveryCompression(t *testing.T) {
	d := startDaemon(t)
	r := registrytest.New(t, registrytest.Options{})
	var layers []v1.Layer
	for i, options := range [][]ggcrtar.LayerOption{
		{}, {ggcrtar.WithCompression(compression.ZStd), ggcrtar.WithMediaType(types.OCILayerZStd)},
	} {
		layers = append(layers, layerOf(t, tarOf(t, tarReg(fmt.Sprint("f", i), fmt.Sprint(i)), tarReg("top", fmt.Sprint(i))), options...))
	}
	layers = append(layers, static.NewLayer(tarOf(t, tarReg("f2", "2"), tarReg("top", "2")), types.OCIUncompressedLayer))
	img := mutate.MediaType(imageOf(t, layers...), types.OCIManifestSchema1)
	pushImage(t, r.Host+"/base:1", img)
	out := t.TempDir()
	d.build("-o", out, write(t, map[string]string{"Dockerfile": "FROM " + r.Host + "/base:1\n"}))
	for file, want := range map[string]string{"f0": "0", "f1": "1", "f2": "2", "top": "2"} {
		if got := read(t, out, file); got != want {
			t.Errorf("%s: %q, want %q", file, got, want)
		}
	}
	// The layers go on as they came.
	d.build("-t", r.Host+"/next:1", "--push", write(t, map[string]string{"Dockerfile": "FROM " + r.Host + "/base:1\nCOPY Dockerfile /\n"}))
	next, err := remote.Image(tag(t, r.Host+"/next:1")) // to be compared: validate knows gzip only
	if err != nil {
		t.Fatal(err)
	}
	have, err := next.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for i := range layers {
		if a, b := digestOf(t, layers[i]), digestOf(t, have[i]); a != b {
			t.Errorf("layer %d was %s and is %s", i, a, b)
		}
	}
}

func TestPlatformOfAnIndex(t *testing.T) {
	d := startDaemon(t)
	r := registrytest.New(t, registrytest.Options{})
	index := v1.ImageIndex(empty.Index)
	for _, arch := range []string{"amd64", "arm64"} {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        imageFor(t, arch, layerOf(t, tarOf(t, tarReg("arch", arch)))),
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	if err := remote.WriteIndex(tag(t, r.Host+"/multi:1"), index); err != nil {
		t.Fatal(err)
	}
	src := write(t, map[string]string{"Dockerfile": "FROM " + r.Host + "/multi:1\nCOPY Dockerfile /\n"})
	for _, arch := range []string{"amd64", "arm64"} {
		out := t.TempDir()
		d.build("--platform", "linux/"+arch, "-o", out, src)
		if got := read(t, out, "arch"); got != arch {
			t.Errorf("for %s: %q", arch, got)
		}
	}
	res := d.run("build", "--platform", "linux/s390x", "-o", "type=cacheonly", src)
	if res.code != 1 || !strings.Contains(res.errOut, "linux/s390x") {
		t.Errorf("a platform that the image is not for: exit %d\n%s", res.code, res.errOut)
	}
}

func TestPinnedImageNeedsNoRegistryTwice(t *testing.T) {
	d := startDaemon(t)
	r := registrytest.New(t, registrytest.Options{})
	digest := pushImage(t, r.Host+"/base:1", imageOf(t, layerOf(t, tarOf(t, tarReg("f", "pinned")))))
	dockerfile := "FROM " + r.Host + "/base@" + digest + "\nCOPY Dockerfile /"
	d.build("-o", t.TempDir(), write(t, map[string]string{"Dockerfile": dockerfile + "first\n"}))
	r.Close()
	out := t.TempDir()
	d.build("-o", out, write(t, map[string]string{"Dockerfile": dockerfile + "second\n"}))
	if got := read(t, out, "f"); got != "pinned" {
		t.Errorf("got %q", got)
	}
}

// login writes a docker configuration with one account and returns the flags' environment for it.
func login(t *testing.T, host, user, password string) {
	t.Helper()
	config, err := json.Marshal(map[string]any{"auths": map[string]any{host: map[string]any{"auth": []byte(user + ":" + password)}}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_CONFIG", dir)
}

func TestRegistryCredentials(t *testing.T) {
	for _, kind := range []registrytest.Auth{registrytest.Basic, registrytest.Bearer} {
		t.Run(string(kind), func(t *testing.T) {
			t.Setenv("DOCKER_CONFIG", t.TempDir())
			d := startDaemon(t)
			r := registrytest.New(t, registrytest.Options{Auth: kind, Accounts: map[string]string{"jane": "s3cret-password"}})
			pushImage(t, r.Host+"/private:1", imageOf(t, layerOf(t, tarOf(t, tarReg("f", "private")))), &authn.Basic{Username: "jane", Password: "s3cret-password"})
			src := write(t, map[string]string{"Dockerfile": "FROM " + r.Host + "/private:1\nCOPY Dockerfile /\n"})

			refused := func(what string, args ...string) {
				t.Helper()
				res := d.run(append([]string{"build"}, args...)...)
				if res.code != 1 || !strings.Contains(res.errOut, r.Host) || !strings.Contains(res.errOut, "denies access") {
					t.Errorf("%s: exit %d, want the registry to be named:\n%s", what, res.code, res.errOut)
				}
				if strings.Contains(res.all(), "s3cret") {
					t.Errorf("%s: the password was printed:\n%s", what, res.all())
				}
			}
			refused("without credentials", "-o", t.TempDir(), src)
			login(t, r.Host, "jane", "s3cret-but-wrong")
			refused("with a wrong password", "-o", t.TempDir(), src)
			login(t, r.Host, "jane", "s3cret-password")
			out := t.TempDir()
			d.build("-o", out, src)
			if got := read(t, out, "f"); got != "private" {
				t.Errorf("got %q", got)
			}
			d.build("-t", r.Host+"/pushed:1", "--push", src)
			// What one who may knows does not let in one who may not.
			t.Setenv("DOCKER_CONFIG", t.TempDir())
			refused("pull without credentials after another's build", "-o", t.TempDir(), src)
			refused("push without credentials", "-t", r.Host+"/pushed:2", "--push", write(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"}))
			if strings.Contains(d.logText(), "s3cret") {
				t.Errorf("the password is in the daemon's log")
			}
		})
	}
}

func TestPush(t *testing.T) {
	need(t, "skopeo")
	d := startDaemon(t)
	r := registrytest.New(t, registrytest.Options{})
	base := layerOf(t, tarOf(t, tarReg("f", strings.Repeat("base", 1000))))
	pushImage(t, r.Host+"/base:1", imageOf(t, base))
	src := write(t, map[string]string{"Dockerfile": "FROM " + r.Host + "/base:1\nLABEL made=here\nCOPY Dockerfile /\n"})
	uploads := func() int { return r.Count(http.MethodPost, "/blobs/uploads") }

	r.Forget()
	md := filepath.Join(t.TempDir(), "md.json")
	d.build("-t", r.Host+"/pushed:1", "-t", r.Host+"/pushed:other", "--push", "--metadata-file", md, src)
	if !strings.Contains(read(t, md), digestOf(t, pulled(t, r.Host+"/pushed:1"))) || digestOf(t, pulled(t, r.Host+"/pushed:1")) != digestOf(t, pulled(t, r.Host+"/pushed:other")) {
		t.Errorf("what was pushed is not what the metadata tells: %s", read(t, md))
	}
	inspected := command(t, "skopeo", "inspect", "--tls-verify=false", "docker://"+r.Host+"/pushed:1")
	if !strings.Contains(inspected, `"made": "here"`) {
		t.Errorf("skopeo inspect: %s", inspected)
	}
	r.Forget()
	d.build("-t", r.Host+"/pushed:1", "--push", src)
	if n := uploads(); n != 0 {
		t.Errorf("pushing what is there began %d uploads", n)
	}
}

func TestPushMountsWhatTheRegistryHas(t *testing.T) {
	d := startDaemon(t)
	r := registrytest.New(t, registrytest.Options{})
	l := layerOf(t, tarOf(t, tarReg("f", strings.Repeat("base", 1000))))
	pushImage(t, r.Host+"/team/base:1", imageOf(t, l))
	digest := digestOf(t, l)
	// The registry underneath has one store for all repositories. Here each has its own, and blobs can be mounted.
	var mounted atomic.Bool
	r.Fault(func(w http.ResponseWriter, q *http.Request) bool {
		switch {
		case q.Method == http.MethodHead && q.URL.Path == "/v2/other/app/blobs/"+digest && !mounted.Load():
			http.Error(w, "{}", http.StatusNotFound)
			return true
		case q.Method == http.MethodPost && q.URL.Query().Get("mount") == digest && q.URL.Query().Get("from") == "team/base":
			mounted.Store(true)
			w.Header().Set("Location", "/v2/other/app/blobs/"+digest)
			w.WriteHeader(http.StatusCreated)
			return true
		}
		return false
	})
	d.build("-t", r.Host+"/other/app:1", "--push", write(t, map[string]string{"Dockerfile": "FROM " + r.Host + "/team/base:1\nLABEL a=b\n"}))
	if !mounted.Load() {
		t.Errorf("the layer was not mounted from where it is: %v", r.Requests())
	}
	if n := r.Count(http.MethodGet, "/blobs/"+digest); n != d.broughtFor(1) {
		t.Errorf("the layer was downloaded %d times to be pushed to where it is", n)
	}
	pulled(t, r.Host+"/other/app:1")
}

// trap is an image that cannot be built on, and what must be said about it.
type trap struct {
	name string
	// image is pushed, unless it is nil.
	image func(t *testing.T) v1.Image
	// fault stands before the registry.
	fault func(img v1.Image) func(http.ResponseWriter, *http.Request) bool
	// ref is what comes behind the repository, ":1" if it is empty.
	ref  string
	want []string
}

func one(files ...tarFile) func(*testing.T) v1.Image {
	return func(t *testing.T) v1.Image { return imageOf(t, layerOf(t, tarOf(t, files...))) }
}

// blobs answers requests for the image's only layer in another way.
func blobs(answer func(w http.ResponseWriter, l []byte)) func(v1.Image) func(http.ResponseWriter, *http.Request) bool {
	return func(img v1.Image) func(http.ResponseWriter, *http.Request) bool {
		layers, _ := img.Layers()
		digest, _ := layers[0].Digest()
		r, _ := layers[0].Compressed()
		b, _ := io.ReadAll(r)
		return func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "/blobs/"+digest.String()) {
				return false
			}
			answer(w, b)
			return true
		}
	}
}

// manifests answers requests for manifests with a document.
func manifests(mediaType, document string) func(v1.Image) func(http.ResponseWriter, *http.Request) bool {
	return func(v1.Image) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/manifests/") {
				return false
			}
			w.Header().Set("Content-Type", mediaType)
			_, _ = io.WriteString(w, document) // the client left
			return true
		}
	}
}

var traps = []trap{
	{name: "no such image", want: []string{"not found"}},
	{name: "wrong digest", image: one(tarReg("f", "f")), ref: "@sha256:" + strings.Repeat("0", 64), want: []string{"not found", "sha256:000000"}},
	{name: "corrupt layer", image: one(tarReg("f", "corrupt layer")), want: []string{"compressed layer", "sha256:"},
		fault: blobs(func(w http.ResponseWriter, l []byte) { l = bytes.Clone(l); l[len(l)/2] ^= 1; _, _ = w.Write(l) })},
	{name: "truncated layer", image: one(tarReg("f", "truncated layer")), want: []string{"broke off after", "bytes"},
		fault: blobs(func(w http.ResponseWriter, l []byte) { _, _ = w.Write(l[:len(l)/2]) })},
	{name: "layer too long", image: one(tarReg("f", "layer too long")), want: []string{"size"},
		fault: blobs(func(w http.ResponseWriter, l []byte) { _, _ = w.Write(append(bytes.Clone(l), l...)) })},
	{name: "missing layer", image: one(tarReg("f", "missing layer")), want: []string{"not found"},
		fault: blobs(func(w http.ResponseWriter, _ []byte) { http.Error(w, "{}", http.StatusNotFound) })},
	{name: "registry unwell", image: one(tarReg("f", "registry unwell")), want: []string{"500"},
		fault: blobs(func(w http.ResponseWriter, _ []byte) { http.Error(w, "{}", http.StatusInternalServerError) })},
	{name: "garbage for a manifest", image: one(tarReg("f", "f")), fault: manifests("application/vnd.oci.image.manifest.v1+json", "this is no JSON"), want: []string{"manifest"}},
	{name: "page for a manifest", image: one(tarReg("f", "f")), fault: manifests("text/html", "<html>log in first</html>"), want: []string{"not a container image"}},
	{name: "schema 1", image: one(tarReg("f", "f")), want: []string{"no longer supported"},
		fault: manifests("application/vnd.docker.distribution.manifest.v1+prettyjws", `{"schemaVersion":1,"name":"x","tag":"1","fsLayers":[],"history":[]}`)},
	{name: "endless manifest", image: one(tarReg("f", "f")), want: []string{"manifest"},
		fault: manifests("application/vnd.oci.image.manifest.v1+json", `{"schemaVersion":2,"annotations":{"a":"`+strings.Repeat("x", 32<<20)+`"}}`)},
	{name: "layer that is no tar", want: []string{"tar"}, image: func(t *testing.T) v1.Image {
		return imageOf(t, static.NewLayer(bytes.Repeat([]byte("no tar"), 1000), types.OCIUncompressedLayer))
	}},
	{name: "layer that unpacks to much", want: []string{"unpacks to more than"}, image: func(t *testing.T) v1.Image {
		return imageOf(t, bomb(t))
	}},
	{name: "path out of the root", image: one(tarReg("../../escaped", "x")), want: []string{"../../escaped", "out of the root"}},
	{name: "path that comes back", image: one(tarReg("a/../../etc/escaped", "x")), want: []string{"out of the root"}},
	{name: "hard link out of the root", image: one(tarHard("f", "../../../../etc/passwd")), want: []string{"unsafe path", "../../../../etc/passwd"}},
	{name: "hard link to nothing", image: one(tarHard("f", "/etc/passwd")), want: []string{"not in the layer"}},
	{name: "directory over a file", image: one(tarReg("f", "x"), tarReg("f/g", "x")), want: []string{"not a directory"}},
	{name: "endless symlinks", image: one(tarSym("a", "b"), tarSym("b", "a"), tarReg("a/f", "x")), want: []string{"symbolic links"}},
}

// bomb is a small layer of a large file.
func bomb(t *testing.T) v1.Layer {
	t.Helper()
	const size = 3 << 30
	var zeros bytes.Buffer
	// Members of zeros, each a kilobyte for a megabyte, make the stream in no time.
	z := gzip.NewWriter(&zeros)
	if _, err := z.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	var header bytes.Buffer
	w := tar.NewWriter(&header)
	if err := w.WriteHeader(&tar.Header{Name: "zeros", Mode: 0o644, Size: size}); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	z = gzip.NewWriter(&b)
	if _, err := z.Write(header.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for range size >> 20 {
		b.Write(zeros.Bytes())
	}
	return static.NewLayer(b.Bytes(), types.OCILayer)
}

func TestBadImages(t *testing.T) {
	for _, how := range []string{"erofs", "unpacked"} {
		t.Run(how, func(t *testing.T) {
			d := withLayers(t, how)
			r := registrytest.New(t, registrytest.Options{})
			for i, trap := range traps {
				t.Run(trap.name, func(t *testing.T) { trap.spring(t, d, r, fmt.Sprintf("%s/trap%d", r.Host, i)) })
			}
			if _, err := os.Lstat(filepath.Join(filepath.Dir(d.root), "escaped")); err == nil {
				t.Error("a layer has written outside")
			}
			pushImage(t, r.Host+"/good:1", imageOf(t, layerOf(t, tarOf(t, tarReg("f", "good")))))
			out := t.TempDir()
			d.build("-o", out, write(t, map[string]string{"Dockerfile": "FROM " + r.Host + "/good:1\n"}))
			if got := read(t, out, "f"); got != "good" {
				t.Errorf("after all of that: %q", got)
			}
		})
	}
}

func (p trap) spring(t *testing.T, d *daemon, r *registrytest.Server, repo string) {
	var img v1.Image
	if p.image != nil {
		img = p.image(t)
		pushImage(t, repo+":1", img)
	}
	if p.fault != nil {
		r.Fault(p.fault(img))
		defer r.Fault(nil)
	}
	ref := p.ref
	if ref == "" {
		ref = ":1"
	}
	res := d.run("build", "--progress", "plain", "-o", t.TempDir(), write(t, map[string]string{"Dockerfile": "FROM " + repo + ref + "\n"}))
	if res.code != 1 {
		t.Errorf("exit %d, want 1", res.code)
	}
	last := res.errOut[strings.LastIndex(res.errOut, "ERROR: ")+1:]
	for _, want := range append([]string{strings.TrimPrefix(repo, r.Host)}, p.want...) {
		if !strings.Contains(last, want) {
			t.Errorf("nothing says %q:\n%s", want, res.errOut)
		}
	}
}

func TestLayerThatKnowsTooMuch(t *testing.T) {
	need(t, "busybox")
	for _, how := range []string{"erofs", "unpacked"} {
		t.Run(how, func(t *testing.T) {
			d := withLayers(t, how)
			r := registrytest.New(t, registrytest.Options{})
			// Names that overlayfs acts upon, symlinks that would lead out if they were followed on the host.
			lower := tarOf(t, tarDir("dir"), tarReg("dir/below", "b"), tarReg("file", "below"), tarReg("kept", "what no layer may hide with a device of overlayfs"))
			upper := tarOf(t,
				tarDir("dir").with(0o755, 0, 0, "trusted.overlay.opaque", "y", "trusted.overlay.redirect", "/etc", "user.overlay.opaque", "y"),
				tarReg("dir/above", "a"),
				tarReg("file2", "").with(0o644, 0, 0, "trusted.overlay.metacopy", "", "trusted.overlay.redirect", "/file"),
				tarFile{tar.Header{Typeflag: tar.TypeChar, Name: "kept", Mode: 0o600, ModTime: old}, ""},
				tarSym("out", "/etc"), tarReg("out/through-absolute", "1"), tarSym("up", "../../../../../../etc"), tarReg("up/through-relative", "2"),
			)
			pushImage(t, r.Host+"/base:1", imageOf(t, layerOf(t, busyboxTar(t)), layerOf(t, lower), layerOf(t, upper)))
			out := t.TempDir()
			d.build("-o", out, write(t, map[string]string{"Dockerfile": "FROM " + r.Host + `/base:1
RUN ls dir > /seen; cat file2 >> /seen; test -f kept || echo hidden >> /seen; ls /etc >> /seen
`}))
			if got := read(t, out, "seen"); !strings.HasPrefix(got, "above\nbelow\n") || strings.Contains(got, "hidden") || !strings.Contains(got, "through-absolute\nthrough-relative\n") {
				t.Errorf("the step saw %q", got)
			}
			for _, leaked := range []string{"/etc/through-absolute", "/etc/through-relative"} {
				if _, err := os.Lstat(leaked); err == nil {
					t.Errorf("a layer has written %s on the host", leaked)
				}
			}
		})
	}
}
