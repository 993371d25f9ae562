package s3

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/slipwaybuild/slipway/solver/remotecache"
	"github.com/slipwaybuild/slipway/solver/remotecache/remotecachetest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve serves S3 with one bucket, and returns the attributes of a cache in it.
func serve(t *testing.T, seen func(*http.Request)) map[string]string {
	t.Helper()
	backend := s3mem.New()
	if err := backend.CreateBucket("caches"); err != nil {
		t.Fatal(err)
	}
	fake := gofakes3.New(backend).Server()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if seen != nil {
			seen(r)
		}
		fake.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	return map[string]string{
		"bucket": "caches", "region": "eu-central-1", "endpoint_url": srv.URL, "use_path_style": "true",
		"access_key_id": "key", "secret_access_key": "s3cret", "prefix": "team/", "retry_max_attempts": "1",
	}
}

func open(t *testing.T, attrs map[string]string, write bool) remotecache.Target {
	t.Helper()
	p, err := NewOpener().Open(t.Context(), attrs, write)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPlace(t *testing.T) {
	attrs := serve(t, nil)
	remotecachetest.TestTarget(t, func(t *testing.T) remotecache.Target { return open(t, attrs, true) })
	if l := open(t, attrs, false).Location(); strings.Contains(l, "s3cret") || !remotecache.IsLocation(l) {
		t.Errorf("location %q", l)
	}
}

func TestNamesAndLayout(t *testing.T) {
	var paths []string
	attrs := serve(t, func(r *http.Request) {
		if r.Method == http.MethodPut {
			paths = append(paths, r.URL.Path)
		}
	})
	attrs["name"] = "main;branch"
	b := remotecachetest.Random(5)
	p := open(t, attrs, true)
	if err := p.Put(t.Context(), b.Desc(), b, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Save(t.Context(), remotecachetest.Cache("x", b), func(string) func() { return func() {} }); err != nil {
		t.Fatal(err)
	}
	want := []string{"/caches/team/blobs/" + b.Desc().Digest.String(), "/caches/team/manifests/main", "/caches/team/manifests/branch"}
	if strings.Join(paths, " ") != strings.Join(want, " ") {
		t.Errorf("wrote %v, want %v", paths, want)
	}
}

func TestTouch(t *testing.T) {
	copies := 0
	attrs := serve(t, func(r *http.Request) {
		if r.Header.Get("X-Amz-Copy-Source") != "" {
			copies++
		}
	})
	attrs["touch_refresh"] = "1ns"
	b := remotecachetest.Random(5)
	if err := open(t, attrs, true).Put(t.Context(), b.Desc(), b, ""); err != nil {
		t.Fatal(err)
	}
	for write, want := range map[bool]int{false: 0, true: 1} {
		copies = 0
		if there, err := open(t, attrs, write).Has(t.Context(), b.Desc()); !there || err != nil || copies != want {
			t.Errorf("writing %v: %v, %v, %d copies, want %d", write, there, err, copies, want)
		}
	}
}

func TestAttributes(t *testing.T) {
	t.Setenv("AWS_REGION", "from-environment")
	good := map[string]string{"bucket": "b"}
	for _, c := range []struct{ key, value, want string }{
		{"", "", ""},
		{"upload_parallelism", "0", "upload_parallelism must be a positive integer"},
		{"upload_parallelism", "many", "upload_parallelism must be a positive integer"},
		{"retry_max_attempts", "-1", "retry_max_attempts must be a positive integer"},
		{"retry_mode", "never", `retry_mode must be "standard" or "adaptive"`},
		{"retry_mode", "adaptive", ""},
	} {
		attrs := maps.Clone(good)
		attrs[c.key] = c.value
		_, err := parse(attrs)
		if c.want == "" != (err == nil) || err != nil && err.Error() != c.want {
			t.Errorf("%s=%s: %v, want %q", c.key, c.value, err, c.want)
		}
	}
	if _, err := parse(nil); err == nil || err.Error() != "bucket ($AWS_BUCKET) not set for s3 cache" {
		t.Errorf("without a bucket: %v", err)
	}
}
