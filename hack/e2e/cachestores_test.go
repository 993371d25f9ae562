package e2e

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/slipwaybuild/slipway/solver/remotecache/remotecachetest"
)

// TestCacheInObjectStores shares a cache through stores that need keys, and takes the keys away from who has all but the bytes.
func TestCacheInObjectStores(t *testing.T) {
	backend := s3mem.New()
	if err := backend.CreateBucket("caches"); err != nil {
		t.Fatal(err)
	}
	s3 := httptest.NewServer(gofakes3.New(backend).Server())
	t.Cleanup(s3.Close)
	azure := remotecachetest.NewAzure(t)
	busybox := busyboxContext(t)
	for name, options := range map[string]string{
		"s3":     "type=s3,bucket=caches,region=x,use_path_style=true,access_key_id=k,secret_access_key=hushhush,endpoint_url=" + s3.URL,
		"azblob": "type=azblob,account_name=acme,secret_access_key=aHVzaGh1c2g=,account_url=" + azure.URL,
	} {
		t.Run(name, func(t *testing.T) {
			src := write(t, map[string]string{"Dockerfile": cacheDockerfile, "src": "source of " + name})
			first, second := t.TempDir(), t.TempDir()
			startDaemon(t).build("--cache-to", options+",mode=max", busybox, "-o", first, src)
			b := startDaemon(t)
			// Nothing is fetched here: the result stays where it is.
			b.build("--cache-from", options, "-o", "type=cacheonly", busybox, src)
			r := b.build(busybox, "-o", t.TempDir(), src)
			if strings.Contains(r.all(), "hushhush") || strings.Contains(b.logText(), "hushhush") {
				t.Error("a key was shown")
			}
			c := startDaemon(t)
			c.build("--cache-from", options, busybox, "-o", second, src)
			if traces(t, first) != traces(t, second) {
				t.Error("the second machine made its own")
			}
		})
	}
}
