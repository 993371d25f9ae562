package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipwaybuild/slipway/solver/source/registry/registrytest"
)

// cacheDockerfile has steps whose outcome differs each time they run: two machines that have the same have shared it.
const cacheDockerfile = base + `FROM base AS build
COPY src /src
RUN cat /src > /out; head -c 16 /dev/urandom | od -x > /made
FROM base
RUN head -c 16 /dev/urandom | od -x > /mine
COPY --from=build /made /out /
RUN true
`

// realRegistry is Debian's docker-registry, which keeps repositories apart and deletes what it is told to.
type realRegistry struct {
	t    *testing.T
	host string
	root string
}

func startRegistry(t *testing.T) *realRegistry {
	t.Helper()
	need(t, "docker-registry")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &realRegistry{t: t, host: l.Addr().String(), root: t.TempDir()}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\nhttp: {addr: %s}\n", r.root, r.host)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("docker-registry", "serve", config)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get("http://" + r.host + "/v2/")
		if err == nil {
			_ = resp.Body.Close()
			return r
		}
		if time.Now().After(deadline) {
			t.Fatalf("the registry does not answer: %v\n%s", err, log.String())
		}
	}
}

// blobs lists what is in a repository, manifests included.
func (r *realRegistry) blobs(repo string) []string {
	r.t.Helper()
	links, err := filepath.Glob(filepath.Join(r.root, "docker/registry/v2/repositories", repo, "_layers/sha256/*/link"))
	if err != nil {
		r.t.Fatal(err)
	}
	var list []string
	for _, l := range links {
		list = append(list, "sha256:"+filepath.Base(filepath.Dir(l)))
	}
	return list
}

// remove deletes a blob from a repository, as a retention policy would.
func (r *realRegistry) remove(repo, digest string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodDelete, "http://"+r.host+"/v2/"+repo+"/blobs/"+digest, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		r.t.Fatalf("delete %s: %s", digest, resp.Status)
	}
}

// traces reads what steps that differ each time made.
func traces(t *testing.T, dir string) string {
	t.Helper()
	return read(t, dir, "made") + read(t, dir, "mine")
}

func TestCacheTravels(t *testing.T) {
	reg := startRegistry(t)
	busybox := busyboxContext(t)
	for _, c := range []struct{ name, to, from string }{
		{"image manifest", "type=registry,mode=max,ref=HOST/a:c", "HOST/a:c"},
		{"index", "type=registry,mode=max,image-manifest=false,ref=HOST/b:c", "type=registry,ref=HOST/b:c"},
		{"docker index", "type=registry,mode=max,oci-mediatypes=false,compression=gzip,ref=HOST/c:c", "type=registry,ref=HOST/c:c"},
		{"zstd", "type=registry,mode=max,compression=zstd,compression-level=3,force-compression=true,ref=HOST/d:c", "type=registry,ref=HOST/d:c"},
		{"min", "type=registry,ref=HOST/e:c", "type=registry,ref=HOST/e:c"},
		{"directory", "type=local,mode=max,dest=DIR", "type=local,src=DIR"},
		{"tagged directory", "type=local,mode=max,dest=DIR,tag=mine,image-manifest=false", "type=local,src=DIR,tag=mine;type=local,src=DIR/none"},
		{"several", "type=registry,ref=HOST/f:c;type=registry,mode=max,ref=HOST/g:c", "HOST/none:x;HOST/g:c"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			flags := func(flag, list string) (args []string) {
				for s := range strings.SplitSeq(strings.NewReplacer("HOST", reg.host, "DIR", dir).Replace(list), ";") {
					args = append(args, flag, s)
				}
				return args
			}
			src := write(t, map[string]string{"Dockerfile": cacheDockerfile, "src": "source"})
			first, second := t.TempDir(), t.TempDir()
			a := startDaemon(t)
			a.build(append(flags("--cache-to", c.to), busybox, "-o", first, src)...)
			b := startDaemon(t)
			r := b.build(append(flags("--cache-from", c.from), busybox, "-o", second, src)...)
			if traces(t, first) != traces(t, second) {
				t.Errorf("the second machine made its own:\n%s", r.all())
			}
			if c.name == "several" && !strings.Contains(r.all(), "none:x") {
				t.Errorf("nothing says that a cache is missing:\n%s", r.all())
			}
			// What was imported is there without the import.
			third := t.TempDir()
			b.build(busybox, "-o", third, src)
			if traces(t, first) != traces(t, third) {
				t.Error("the import was forgotten")
			}
		})
	}
}

// inlineDockerfile builds an image that holds all that differs.
const inlineDockerfile = base + `RUN head -c 16 /dev/urandom | od -x > /mine
RUN true
RUN head -c 16 /dev/urandom | od -x > /made
`

func TestCacheInline(t *testing.T) {
	reg := startRegistry(t)
	busybox := busyboxContext(t)
	for name, args := range map[string][]string{
		"type":      {"--cache-to", "type=inline"},
		"build arg": {"--build-arg", "BUILDKIT_INLINE_CACHE=1"},
		"index":     {"--cache-to", "type=inline", "--platform", "linux/amd64,linux/arm64"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "index" {
				t.Skip("steps of another platform need emulation")
			}
			ref := reg.host + "/inline-" + strings.ReplaceAll(name, " ", "-") + ":1"
			src := write(t, map[string]string{"Dockerfile": inlineDockerfile})
			first, second := t.TempDir(), t.TempDir()
			a := startDaemon(t)
			a.build(append(args, busybox, "-t", ref, "--push", src)...)
			a.build(busybox, "-o", first, src)
			b := startDaemon(t)
			r := b.build("--cache-from", ref, busybox, "-o", second, src)
			if traces(t, first) != traces(t, second) {
				t.Errorf("the second machine made its own:\n%s", r.all())
			}
		})
	}
}

// TestCacheIsLazy builds on a second machine what a first has made, and pushes it: no layer may come over.
func TestCacheIsLazy(t *testing.T) {
	reg := registrytest.New(t, registrytest.Options{})
	busybox := busyboxContext(t)
	src := write(t, map[string]string{"Dockerfile": cacheDockerfile, "src": "source"})
	a := startDaemon(t)
	a.build("--cache-to", "type=registry,mode=max,ref="+reg.Host+"/cache:c", busybox, "-t", reg.Host+"/app:1", "--push", src)
	b := startDaemon(t)
	reg.Forget()
	b.build("--cache-from", reg.Host+"/cache:c", busybox, "-t", reg.Host+"/app:2", "--push", src)
	// The cache's config is a blob, too.
	for _, r := range reg.Requests() {
		if r.Method == http.MethodGet && strings.Contains(r.Path, "/blobs/") {
			if got := len(r.Path); got == 0 || !isConfig(t, reg.Host, r.Path) {
				t.Errorf("fetched %s", r.Path)
			}
		}
	}
	one, two := manifestOf(t, reg.Host, "app", "1"), manifestOf(t, reg.Host, "app", "2")
	if !slices.Equal(one, two) {
		t.Errorf("pushed other layers: %v and %v", one, two)
	}

	// A second export of what was only imported loses nothing and sends nothing.
	reg.Forget()
	b.build("--cache-from", reg.Host+"/cache:c", "--cache-to", "type=registry,mode=max,ref="+reg.Host+"/cache:c", busybox, src)
	if n := reg.Count(http.MethodPost, "/blobs/uploads"); n != 0 {
		t.Errorf("%d uploads for an export that brings nothing new", n)
	}
	c := startDaemon(t)
	out, again := t.TempDir(), t.TempDir()
	c.build("--cache-from", reg.Host+"/cache:c", busybox, "-o", out, "--target", "build", src)
	a.build(busybox, "-o", again, "--target", "build", src)
	if read(t, out, "made") != read(t, again, "made") {
		t.Error("the second export lost a stage")
	}
}

// isConfig tells whether a blob is JSON.
func isConfig(t *testing.T, host, path string) bool {
	t.Helper()
	resp, err := http.Get("http://" + host + path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	return json.NewDecoder(resp.Body).Decode(&map[string]any{}) == nil
}

// manifestOf lists the layers of an image.
func manifestOf(t *testing.T, host, repo, tag string) []string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+"/v2/"+repo+"/manifests/"+tag, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var m struct {
		Layers []struct{ Digest string } `json:"layers"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&m); err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, l := range m.Layers {
		list = append(list, l.Digest)
	}
	if len(list) == 0 {
		t.Fatalf("%s:%s has no layers", repo, tag)
	}
	return list
}

// TestHalfEvictedCache takes blobs away before and after they were seen.
func TestHalfEvictedCache(t *testing.T) {
	reg := startRegistry(t)
	busybox := busyboxContext(t)
	src := write(t, map[string]string{"Dockerfile": cacheDockerfile, "src": "source"})
	a := startDaemon(t)
	a.build("--cache-to", "type=registry,mode=max,ref="+reg.host+"/cache:c", busybox, src)
	// This one knows of all of it, and has nothing of it here.
	lazy := startDaemon(t)
	lazy.build("--cache-from", reg.host+"/cache:c", busybox, src)
	blobs := reg.blobs("cache")
	layers := manifestOf(t, reg.host, "cache", "c")
	if len(blobs) < 4 || len(layers) < 4 {
		t.Fatalf("the cache has %d blobs and %d layers", len(blobs), len(layers))
	}
	for _, l := range layers {
		reg.remove("cache", l)
	}
	for what, run := range map[string]func() result{
		"never seen": func() result {
			return startDaemon(t).build("--cache-from", reg.host+"/cache:c", busybox, "-o", t.TempDir(), src)
		},
		"seen before":   func() result { return lazy.build("--cache-from", reg.host+"/cache:c", busybox, "-o", t.TempDir(), src) },
		"pushed anyway": func() result { return lazy.build(busybox, "-t", reg.host+"/app:1", "--push", src) },
	} {
		if r := run(); r.code != 0 {
			t.Errorf("%s: exit %d\n%s", what, r.code, r.all())
		}
	}
	// What is left of it is mended by the next export.
	a.build("--cache-to", "type=registry,mode=max,ref="+reg.host+"/cache:c", busybox, src)
	first, second := t.TempDir(), t.TempDir()
	a.build(busybox, "-o", first, src)
	startDaemon(t).build("--cache-from", reg.host+"/cache:c", busybox, "-o", second, src)
	if traces(t, first) != traces(t, second) {
		t.Error("the mended cache is not used")
	}
}

// TestCachesMerge lets machines write under one name, one after another and several builds at once.
func TestCachesMerge(t *testing.T) {
	reg := startRegistry(t)
	busybox := busyboxContext(t)
	ref := reg.host + "/shared:c"
	to := "type=registry,mode=max,ref=" + ref
	sources := make([]string, 6)
	for i := range sources {
		sources[i] = write(t, map[string]string{"Dockerfile": cacheDockerfile, "src": fmt.Sprint("project ", i)})
	}
	outs := make([]string, len(sources))
	a, b := startDaemon(t), startDaemon(t)
	outs[0], outs[1] = t.TempDir(), t.TempDir()
	a.build("--cache-to", to, busybox, "-o", outs[0], sources[0])
	b.build("--cache-to", to, busybox, "-o", outs[1], sources[1])
	var wg sync.WaitGroup
	for i := 2; i < len(sources); i++ {
		outs[i] = t.TempDir()
		wg.Go(func() {
			if r := a.run("build", "--cache-to", to, busybox, "-o", outs[i], sources[i]); r.code != 0 {
				t.Errorf("exit %d\n%s", r.code, r.all())
			}
		})
	}
	wg.Wait()
	c := startDaemon(t)
	for i, src := range sources {
		out := t.TempDir()
		c.build("--cache-from", ref, busybox, "-o", out, src)
		if i == 0 {
			continue // its stage without a context was made by two machines: either result is right
		}
		if read(t, out, "made") != read(t, outs[i], "made") {
			t.Errorf("what project %d wrote is gone", i)
		}
	}
}

// TestCacheAfterTheAnswer lets the registry take uploads only once the build has been answered.
func TestCacheAfterTheAnswer(t *testing.T) {
	reg := registrytest.New(t, registrytest.Options{})
	busybox := busyboxContext(t)
	src := write(t, map[string]string{"Dockerfile": cacheDockerfile, "src": "source"})
	answered := make(chan struct{})
	reg.Fault(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			select {
			case <-answered:
			case <-r.Context().Done():
			}
		}
		return false
	})
	first, second := t.TempDir(), t.TempDir()
	a := startDaemon(t)
	a.build("--cache-to", "type=registry,mode=max,wait=false,ref="+reg.Host+"/cache:c", busybox, "-o", first, src)
	close(answered)
	for deadline := time.Now().Add(time.Minute); reg.Count(http.MethodPut, "/manifests/") == 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the cache was not written; the daemon's log:\n%s", a.logText())
		}
	}
	a.stop() // waits for what is under way, or cancels it: either leaves nothing behind
	startDaemon(t).build("--cache-from", reg.Host+"/cache:c", busybox, "-o", second, src)
	if traces(t, first) != traces(t, second) {
		t.Error("the second machine made its own")
	}

	// One that is stopped meanwhile ends in order.
	reg.Fault(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			<-r.Context().Done()
		}
		return false
	})
	b := startDaemon(t)
	b.build("--cache-to", "type=registry,mode=max,wait=false,ref="+reg.Host+"/never:c", busybox, "-o", t.TempDir(), src)
	b.stop()
}
