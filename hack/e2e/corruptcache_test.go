package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipwaybuild/slipway/solver/source/registry/registrytest"
)

// TestCorruptCache imports caches whose layers are not what they are said to be: the build does without them.
func TestCorruptCache(t *testing.T) {
	need(t, "runc", "busybox")
	busybox := busyboxContext(t)
	src := write(t, map[string]string{"Dockerfile": cacheDockerfile, "src": "source"})
	reg, other := registrytest.New(t, registrytest.Options{}), registrytest.New(t, registrytest.Options{})
	dir, ref := filepath.Join(t.TempDir(), "cache"), reg.Host+"/cache:c"
	a := startDaemon(t)
	a.build("--cache-to", "type=local,mode=max,dest="+dir, "--cache-to", "type=registry,mode=max,ref="+ref, busybox, src)

	for _, l := range layersOfLayout(t, dir) {
		path := filepath.Join(dir, "blobs", "sha256", l)
		b := []byte(read(t, path, ""))
		b[len(b)/2] ^= 0xff
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	layers := manifestOf(t, reg.Host, "cache", "c")
	reg.Fault(func(w http.ResponseWriter, r *http.Request) bool {
		for _, l := range layers {
			if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/blobs/"+l) {
				_, _ = w.Write([]byte("something else")) // the client may have left
				return true
			}
		}
		return false
	})
	defer reg.Fault(nil)

	for name, from := range map[string]string{"directory": "type=local,src=" + dir, "registry": ref} {
		t.Run(name, func(t *testing.T) {
			out := t.TempDir()
			startDaemon(t).build("--cache-from", from, busybox, "-o", out, src)
			if made := read(t, out, "made"); strings.TrimSpace(made) == "" {
				t.Errorf("/made is %q", made)
			}
			// Layers that no step reads go from one registry to the other as they are.
			name := other.Host + "/app:" + name
			startDaemon(t).build("--cache-from", from, busybox, "-t", name, "--push", src)
			pulled(t, name)
		})
	}
}

// layersOfLayout lists the layers of the one manifest of a layout, as files are named.
func layersOfLayout(t *testing.T, dir string) (list []string) {
	t.Helper()
	type descriptor struct{ Digest string }
	var index struct{ Manifests []descriptor }
	var m struct{ Layers []descriptor }
	if err := json.Unmarshal([]byte(read(t, dir, "index.json")), &index); err != nil || len(index.Manifests) != 1 {
		t.Fatalf("%+v, %v", index, err)
	}
	manifest := strings.TrimPrefix(index.Manifests[0].Digest, "sha256:")
	if err := json.Unmarshal([]byte(read(t, dir, filepath.Join("blobs", "sha256", manifest))), &m); err != nil || len(m.Layers) == 0 {
		t.Fatalf("%+v, %v", m, err)
	}
	for _, l := range m.Layers {
		list = append(list, strings.TrimPrefix(l.Digest, "sha256:"))
	}
	return list
}
