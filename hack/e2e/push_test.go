package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	ggcrtar "github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/slipwaybuild/slipway/solver/source/registry/registrytest"
)

// moody is a registry that fails the first few requests of each kind in one way, and then serves.
func moody(times int, fail func(http.ResponseWriter, *http.Request)) func(http.ResponseWriter, *http.Request) bool {
	var mu sync.Mutex
	seen := map[string]int{}
	return func(w http.ResponseWriter, q *http.Request) bool {
		kind := q.Method + " " + strings.Split(strings.TrimPrefix(q.URL.Path, "/v2/app/"), "/")[0]
		mu.Lock()
		seen[kind]++
		failed := seen[kind] > times
		mu.Unlock()
		if failed {
			return false
		}
		fail(w, q)
		return true
	}
}

func answering(code int, header ...string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
		fmt.Fprint(w, `{"errors":[{"code":"UNAVAILABLE","message":"not in the mood"}]}`)
	}
}

// reset cuts the connection, having read a part of what is sent.
func reset(w http.ResponseWriter, q *http.Request) {
	_, _ = q.Body.Read(make([]byte, 1000))
	c, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		_ = c.Close()
	}
}

func TestPushToMoodyRegistry(t *testing.T) {
	d := startDaemon(t)
	dir := write(t, map[string]string{"big": strings.Repeat("0123456789abcdef", 1<<16), "small": "x", "Dockerfile": "FROM scratch\nCOPY big /\nCOPY small /\n"})
	for name, fault := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"resets":               moody(2, reset),
		"5xx":                  moody(2, answering(http.StatusServiceUnavailable)),
		"429 with Retry-After": moody(1, answering(http.StatusTooManyRequests, "Retry-After", "1")),
	} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.New(t, registrytest.Options{})
			r.Fault(fault)
			d.mustDockerfile(dir, map[string]string{"attest:provenance": "mode=min"}, pushTo(r.Host+"/app:1"))
			r.Fault(nil)
			idx, err := remote.Index(tag(t, r.Host+"/app:1"))
			if err != nil {
				t.Fatal(err)
			}
			if err := validate.Index(idx); err != nil {
				t.Errorf("what was pushed is not whole: %v", err)
			}
		})
	}
}

func TestPushThatCannotSucceedLeavesNoTag(t *testing.T) {
	d := startDaemon(t)
	dir := write(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	for want, fault := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"503": func(w http.ResponseWriter, q *http.Request) bool {
			if q.Method != http.MethodPut && q.Method != http.MethodPatch {
				return false
			}
			answering(http.StatusServiceUnavailable)(w, q)
			return true
		},
		"denied": func(w http.ResponseWriter, q *http.Request) bool {
			if q.Method != http.MethodPost {
				return false
			}
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"errors":[{"code":"DENIED","message":"denied"}]}`)
			return true
		},
		// The registry says that it has something else than what it was given.
		"digest": func(w http.ResponseWriter, q *http.Request) bool {
			if q.Method != http.MethodPut || !strings.Contains(q.URL.Path, "/manifests/") {
				return false
			}
			w.Header().Set("Docker-Content-Digest", "sha256:"+strings.Repeat("0", 64))
			w.WriteHeader(http.StatusCreated)
			return true
		},
	} {
		r := registrytest.New(t, registrytest.Options{})
		r.Fault(fault)
		_, err := d.dockerfile(dir, nil, pushTo(r.Host+"/app:1"))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "failed to push "+r.Host+"/app:1") {
			t.Errorf("a push that cannot succeed: %v, want %q", err, want)
		}
		r.Fault(nil)
		if _, err := remote.Image(tag(t, r.Host+"/app:1")); err == nil {
			t.Errorf("after %q the tag is there", want)
		}
		d.mustDockerfile(dir, nil, pushTo(r.Host+"/app:1"))
		if err := validate.Image(pulled(t, r.Host+"/app:1")); err != nil {
			t.Errorf("the next push: %v", err)
		}
	}
}

// Layers that must not be distributed become ordinary ones, unless one prefers that they stay where they are.
func TestForeignLayers(t *testing.T) {
	d := startDaemon(t)
	r := registrytest.New(t, registrytest.Options{})
	l := layerOf(t, tarOf(t, tarReg("secret", "sauce")), ggcrtar.WithMediaType(types.DockerForeignLayer))
	served := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		rc, err := l.Compressed()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.Copy(w, rc)
	}))
	t.Cleanup(served.Close)
	img, err := mutate.Append(imageOf(t), mutate.Addendum{Layer: l, URLs: []string{served.URL + "/layer"}, MediaType: types.DockerForeignLayer})
	if err != nil {
		t.Fatal(err)
	}
	pushImage(t, r.Host+"/base:1", img)
	dir := write(t, map[string]string{"Dockerfile": "FROM " + r.Host + "/base:1\nCOPY Dockerfile /\n"})
	for _, prefer := range []string{"true", "false"} {
		repo := r.Host + "/app-" + prefer
		d.mustDockerfile(dir, nil, pushTo(repo+":1", "prefer-nondist-layers", prefer))
		img, err := remote.Image(tag(t, repo+":1"))
		if err != nil {
			t.Fatal(err)
		}
		m, err := img.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		first := m.Layers[0]
		if prefer == "true" && (len(first.URLs) != 1 || first.MediaType.IsDistributable()) || prefer == "false" && (first.URLs != nil || !first.MediaType.IsDistributable()) {
			t.Errorf("prefer-nondist-layers=%s: the layer is %+v", prefer, first)
		}
		if n := r.Count(http.MethodHead, "/app-"+prefer+"/blobs/"+first.Digest.String()); (n > 0) != (prefer == "false") {
			t.Errorf("prefer-nondist-layers=%s: the registry was asked for the layer %d times", prefer, n)
		}
	}
}
