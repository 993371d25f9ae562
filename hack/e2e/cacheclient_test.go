package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	controlapi "github.com/moby/buildkit/api/services/control"
	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/identity"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/source/registry/registrytest"
)

// TestCacheOptions asks through BuildKit's client what its own users ask.
func TestCacheOptions(t *testing.T) {
	d := startDaemon(t)
	reg := registrytest.New(t, registrytest.Options{})
	c := d.driver()
	def, err := llb.Scratch().File(llb.Mkfile("/f", 0o644, []byte("text"))).Marshal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	solve := func(opt bkclient.SolveOpt) (map[string]string, error) {
		t.Helper()
		res, err := c.Solve(t.Context(), def, opt, nil)
		if err != nil {
			return nil, err
		}
		return res.ExporterResponse, nil
	}
	entry := func(kind string, attrs ...string) bkclient.CacheOptionsEntry {
		e := bkclient.CacheOptionsEntry{Type: kind, Attrs: map[string]string{}}
		for _, a := range attrs {
			k, v, _ := strings.Cut(a, "=")
			e.Attrs[k] = v
		}
		return e
	}
	ref := reg.Host + "/cache:c"
	for name, c := range map[string]struct {
		exports []bkclient.CacheOptionsEntry
		want    string // "" is success
	}{
		"unknown":       {[]bkclient.CacheOptionsEntry{entry("tape")}, `unknown cache exporter: "tape"`},
		"duplicate":     {[]bkclient.CacheOptionsEntry{entry("registry", "ref="+ref), entry("registry", "ref="+ref, "mode=max")}, "duplicate cache exports [registry]"},
		"inline twice":  {[]bkclient.CacheOptionsEntry{entry("inline"), entry("inline")}, ""},
		"bad ref":       {[]bkclient.CacheOptionsEntry{entry("registry", "ref=Not A Name")}, "failed to configure registry cache exporter"},
		"bad bool":      {[]bkclient.CacheOptionsEntry{entry("registry", "ref="+ref, "oci-mediatypes=perhaps")}, "failed to parse oci-mediatypes"},
		"impossible":    {[]bkclient.CacheOptionsEntry{entry("registry", "ref="+ref, "oci-mediatypes=false", "image-manifest=true")}, "OCI mediatypes are required"},
		"no bucket":     {[]bkclient.CacheOptionsEntry{entry("s3")}, "bucket ($AWS_BUCKET) not set for s3 cache"},
		"unreachable":   {[]bkclient.CacheOptionsEntry{entry("registry", "ref=127.0.0.1:1/x:y")}, "exporting cache to registry"},
		"ignored error": {[]bkclient.CacheOptionsEntry{entry("registry", "ref=127.0.0.1:1/x:y", "ignore-error=true")}, ""},
		"strange mode":  {[]bkclient.CacheOptionsEntry{entry("registry", "ref="+ref, "mode=most")}, ""},
	} {
		_, err := solve(bkclient.SolveOpt{CacheExports: c.exports})
		if c.want == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}

	answer, err := solve(bkclient.SolveOpt{CacheExports: []bkclient.CacheOptionsEntry{entry("registry", "ref="+ref)}})
	var desc ocispecs.Descriptor
	if err != nil || json.Unmarshal([]byte(answer["cache.manifest"]), &desc) != nil || desc.MediaType != ocispecs.MediaTypeImageManifest {
		t.Errorf("the answer is %v, %v", answer, err)
	}
	dir := t.TempDir()
	if _, err = solve(bkclient.SolveOpt{CacheExports: []bkclient.CacheOptionsEntry{entry("local", "dest="+dir)}}); err != nil {
		t.Errorf("to a directory: %v", err)
	}
	for _, im := range []bkclient.CacheOptionsEntry{entry("local", "src="+dir), entry("registry", "ref="+ref), entry("tape"), entry("registry", "ref="+reg.Host+"/none:x")} {
		if _, err := solve(bkclient.SolveOpt{CacheImports: []bkclient.CacheOptionsEntry{im}}); err != nil {
			t.Errorf("import of %v: %v", im, err)
		}
	}

	// What clients sent before there was a list.
	old, err := c.ControlClient().Solve(t.Context(), &controlapi.SolveRequest{
		Ref: identity.NewID(), Definition: def.ToPB(),
		Cache: &controlapi.CacheOptions{ExportRefDeprecated: reg.Host + "/old:c", ExportAttrsDeprecated: map[string]string{"mode": "max"}, ImportRefsDeprecated: []string{ref}},
	})
	if err != nil || old.ExporterResponse["cache.manifest"] == "" {
		t.Errorf("a deprecated request: %v, %v", old, err)
	}
}

// TestForeignCache imports what BuildKit has written for itself.
func TestForeignCache(t *testing.T) {
	d := startDaemon(t)
	reg := registrytest.New(t, registrytest.Options{})
	putForeignCache(t, reg.Host, "foreign", "c")
	src := write(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	r := d.build("--cache-from", reg.Host+"/foreign:c", "-o", t.TempDir(), src)
	if !strings.Contains(r.all(), "ignoring 2 records that another builder made for itself") {
		t.Errorf("nothing says what was ignored:\n%s", r.all())
	}
	// An export takes its place.
	d.build("--cache-to", "type=registry,ref="+reg.Host+"/foreign:c", "-o", t.TempDir(), src)
	r = startDaemon(t).build("--cache-from", reg.Host+"/foreign:c", "-o", t.TempDir(), src)
	if strings.Contains(r.all(), "ignoring") || !strings.Contains(r.all(), "found the results of") {
		t.Errorf("the export did not replace it:\n%s", r.all())
	}
}

// putForeignCache pushes a cache as BuildKit writes it: an image manifest whose config is the cache's.
func putForeignCache(t *testing.T, host, repo, tag string) {
	t.Helper()
	layer := []byte("no layer that anybody should read")
	config := fmt.Appendf(nil, `{"layers":[{"blob":%q,"parent":-1}],"records":[{"digest":%q,"layers":[{"layer":0,"createdAt":"2024-01-01T00:00:00Z"}],"inputs":[[{"link":1}]]},{"digest":%q}]}`,
		digest.FromBytes(layer), digest.FromString("a"), digest.FromString("b"))
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.buildkit.cacheconfig.v0","digest":%q,"size":%d},"layers":[{"mediaType":%q,"digest":%q,"size":%d,"annotations":{"containerd.io/uncompressed":%q}}]}`,
		ocispecs.MediaTypeImageManifest, digest.FromBytes(config), len(config), ocispecs.MediaTypeImageLayerGzip, digest.FromBytes(layer), len(layer), digest.FromString("diff"))
	put := func(method, url, contentType string, data []byte) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+host+"/v2/"+repo+url, bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", contentType)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			t.Fatalf("%s %s: %s", method, url, resp.Status)
		}
	}
	for _, blob := range [][]byte{layer, config} {
		put(http.MethodPost, "/blobs/uploads/?digest="+digest.FromBytes(blob).String(), "application/octet-stream", blob)
	}
	put(http.MethodPut, "/manifests/"+tag, ocispecs.MediaTypeImageManifest, manifest)
}
