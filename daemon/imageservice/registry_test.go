package imageservice_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/daemon/imageservice"
	"github.com/slipwaybuild/slipway/solver/source/registry"
	"github.com/slipwaybuild/slipway/solver/source/registry/registrytest"
)

func named(t testing.TB, ref string) reference.Named {
	t.Helper()
	n, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func tagged(t testing.TB, ref string) name.Reference {
	t.Helper()
	r, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// told collects updates.
type told struct {
	mu   sync.Mutex
	list []string
}

func (l *told) progress(u imageservice.Update) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if u.Current == 0 {
		l.list = append(l.list, strings.TrimPrefix(u.ID+": "+u.Status, ": "))
	}
}

// has counts the updates that contain a text.
func (l *told) has(text string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.list {
		if strings.Contains(s, text) {
			n++
		}
	}
	return n
}

func (w *world) push(ref string) (out imageservice.Pushed, l *told) {
	w.t.Helper()
	l = &told{}
	if err := w.Push(w.t.Context(), named(w.t, ref), nil, l.progress, func(p imageservice.Pushed) { out = p }); err != nil {
		w.t.Fatal(err)
	}
	return out, l
}

func (w *world) pull(ref string) *told {
	w.t.Helper()
	l := &told{}
	if err := w.Pull(w.t.Context(), named(w.t, ref), nil, nil, l.progress); err != nil {
		w.t.Fatal(err)
	}
	return l
}

func TestPushAndPull(t *testing.T) {
	t.Parallel()
	r := registrytest.New(t, registrytest.Options{})
	w, ref := newWorld(t), r.Host+"/x/y:1"
	b := w.build("a", at(1), ref)
	p, l := w.push(ref)
	if l.list[0] != "The push refers to repository ["+r.Host+"/x/y]" || l.has(": Pushed") != 1 || l.has("1: digest: "+p.Digest.String()) != 1 {
		t.Errorf("%q", l.list)
	}
	img, err := remote.Image(tagged(t, ref))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img); err != nil {
		t.Error(err)
	}
	if id, err := img.ConfigName(); err != nil || id.String() != b.config.Digest.String() {
		t.Errorf("the config has changed: %v %v", id, err)
	}
	if ls, err := img.Layers(); err != nil || len(ls) != 1 {
		t.Error(err)
	} else if mt, err := ls[0].MediaType(); err != nil || mt != types.OCILayer {
		t.Errorf("the layer is not compressed: %v %v", mt, err)
	}
	if _, l := w.push(ref); l.has("Layer already exists") != 1 || l.has("Pushed") != 0 {
		t.Errorf("%q", l.list)
	}
	d, err := w.Inspect(t.Context(), r.Host+"/x/y@"+p.Digest.String())
	if err != nil || !slices.Equal(d.Digests, []string{r.Host + "/x/y@" + p.Digest.String()}) {
		t.Errorf("%+v %v", d, err)
	}

	other := newWorld(t)
	if l := other.pull(ref); l.has("1: Pulling from x/y") != 1 || l.has("Pulling fs layer") != 1 || l.has("Pull complete") != 1 ||
		l.has("Digest: "+p.Digest.String()) != 1 || l.has("Status: Downloaded newer image for "+ref) != 1 {
		t.Errorf("%q", l.list)
	}
	r.Forget()
	if l := other.pull(ref); l.has("Status: Image is up to date for "+ref) != 1 || r.Count(http.MethodGet, "/blobs/") != 0 {
		t.Errorf("%q", l.list)
	}
	if d, err := other.Inspect(t.Context(), b.config.Digest.String()); err != nil || d.ID != p.Digest || len(d.Digests) != 1 {
		t.Errorf("%+v %v", d, err)
	}
	r.Close() // what was pulled is here
	if again := newWorld(t).load(other.save(ref)); len(again) != 1 {
		t.Errorf("%q", again)
	}
}

func TestPushAllTagsAndPullAll(t *testing.T) {
	t.Parallel()
	r := registrytest.New(t, registrytest.Options{})
	w := newWorld(t)
	w.build("a", at(1), r.Host+"/all:1", r.Host+"/all:2")
	w.build("b", at(1), r.Host+"/all:3")
	w.push(r.Host + "/all")
	other := newWorld(t)
	if err := other.PullAll(t.Context(), named(t, r.Host+"/all"), nil, nil, nil); err != nil {
		t.Fatal(err)
	}
	list, err := other.List(t.Context(), imageservice.ListOptions{References: []string{r.Host + "/all"}})
	var tags []string
	for _, s := range list {
		tags = append(tags, s.Tags...)
	}
	slices.Sort(tags)
	if want := []string{r.Host + "/all:1", r.Host + "/all:2", r.Host + "/all:3"}; err != nil || !slices.Equal(tags, want) {
		t.Errorf("%v %v", tags, err)
	}
}

func TestPushAndPullFailures(t *testing.T) {
	t.Parallel()
	r := registrytest.New(t, registrytest.Options{Auth: registrytest.Basic, Accounts: map[string]string{"u": "p"}})
	w := newWorld(t)
	w.build("a", at(1), r.Host+"/private:1")
	l := &told{}
	err := w.Push(t.Context(), named(t, r.Host+"/private:1"), nil, l.progress, nil)
	if !errors.Is(err, registry.ErrUnauthorized) {
		t.Errorf("%v", err)
	}
	if err := w.Pull(t.Context(), named(t, r.Host+"/private:1"), nil, nil, nil); !errors.Is(err, registry.ErrUnauthorized) {
		t.Errorf("%v", err)
	}
	if err := w.Login(t.Context(), r.Host, nil); !errors.Is(err, registry.ErrUnauthorized) {
		t.Errorf("%v", err)
	}
	if err := w.Push(t.Context(), named(t, "nosuch:1"), nil, nil, nil); !errdefs.IsNotFound(err) ||
		err.Error() != "An image does not exist locally with the tag: nosuch" {
		t.Errorf("%v", err)
	}
	open := registrytest.New(t, registrytest.Options{})
	if err := w.Login(t.Context(), open.Host, nil); err != nil {
		t.Error(err)
	}
	if err := w.Pull(t.Context(), named(t, open.Host+"/nosuch:1"), nil, nil, nil); !errdefs.IsNotFound(err) {
		t.Errorf("%v", err)
	}
}

// pushRandom puts an image with one big layer, for two platforms, into a registry.
func pushRandom(t testing.TB, ref string) (layer string) {
	t.Helper()
	var add []mutate.IndexAddendum
	for _, arch := range []string{"arm64", "amd64"} {
		text := make([]byte, 1<<20)
		if _, err := rand.Read(text); err != nil {
			t.Fatal(err)
		}
		l := static.NewLayer(tarOf(t, "big", string(text)), types.OCIUncompressedLayer)
		img, err := mutate.AppendLayers(empty.Image, l)
		if err != nil {
			t.Fatal(err)
		}
		cf, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		cf = cf.DeepCopy()
		cf.OS, cf.Architecture = "linux", arch
		if img, err = mutate.ConfigFile(img, cf); err != nil {
			t.Fatal(err)
		}
		add = append(add, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
		h, err := l.Digest()
		if err != nil {
			t.Fatal(err)
		}
		layer = h.String()
	}
	if err := remote.WriteIndex(tagged(t, ref), mutate.AppendManifests(empty.Index, add...)); err != nil {
		t.Fatal(err)
	}
	return layer
}

func TestInterruptedPullGoesOn(t *testing.T) {
	t.Parallel()
	r := registrytest.New(t, registrytest.Options{})
	ref := r.Host + "/big:1"
	layer := pushRandom(t, ref)
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := w.Pull(ctx, named(t, ref), nil, nil, func(u imageservice.Update) {
		if u.Status == "Downloading" {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("%v", err)
	}
	if err := w.images.GC(t.Context()); err != nil { // must not take what is to be gone on with
		t.Fatal(err)
	}
	r.Forget()
	w.pull(ref)
	went := slices.ContainsFunc(r.Requests(), func(q registrytest.Request) bool {
		return strings.Contains(q.Path, layer) && q.Range != "" && q.Range != "bytes=0-"
	})
	if !went {
		t.Errorf("the layer was fetched from its beginning: %+v", r.Requests())
	}
	if d, err := w.Inspect(t.Context(), ref); err != nil || d.Config.Architecture != "amd64" {
		t.Errorf("%+v %v", d, err)
	}
}

func TestPlatforms(t *testing.T) {
	t.Parallel()
	r := registrytest.New(t, registrytest.Options{})
	ref := r.Host + "/two:1"
	pushRandom(t, ref)
	w := newWorld(t)
	d, list, err := w.Remote(t.Context(), named(t, ref), nil)
	if err != nil || len(list) != 2 || list[0].Architecture != "arm64" || list[1].Architecture != "amd64" {
		t.Errorf("%v %v", list, err)
	}
	arm := ocispecs.Platform{OS: "linux", Architecture: "arm64"}
	if err := w.Pull(t.Context(), named(t, ref), &arm, nil, nil); err != nil {
		t.Fatal(err)
	}
	one, err := w.Inspect(t.Context(), ref)
	if err != nil || one.ID != d.Digest || one.Config.Architecture != "arm64" {
		t.Errorf("%+v %v", one, err)
	}
	w.pull(ref)
	both, err := w.Inspect(t.Context(), ref)
	if err != nil || both.Config.Architecture != "amd64" || both.Size < 2<<20 {
		t.Errorf("%+v %v", both, err)
	}
	// Both go out whole, elsewhere, under the same digest.
	if err := w.Tag(t.Context(), ref, r.Host+"/copy", "1"); err != nil {
		t.Fatal(err)
	}
	if p, _ := w.push(r.Host + "/copy:1"); p.Digest != d.Digest {
		t.Errorf("the copy is %s, and %s was pulled", p.Digest, d.Digest)
	}
	other := newWorld(t)
	other.pull(r.Host + "/copy:1")
	if err := other.Pull(t.Context(), named(t, r.Host+"/copy:1"), &arm, nil, nil); err != nil {
		t.Error(err)
	}
	var out bytes.Buffer
	if err := w.Save(t.Context(), []string{ref}, func() io.Writer { return &out }); err != nil {
		t.Fatal(err)
	}
	if files := filesOf(t, out.Bytes()); digest.FromString(files["blobs/sha256/"+d.Digest.Encoded()]) != d.Digest {
		t.Error("the index is not in the archive")
	}
}
