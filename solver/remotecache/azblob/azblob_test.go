package azblob

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/slipwaybuild/slipway/solver/remotecache"
	"github.com/slipwaybuild/slipway/solver/remotecache/remotecachetest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func client(t *testing.T) *http.Client {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func open(t *testing.T, attrs map[string]string) remotecache.Target {
	t.Helper()
	p, err := New(t.Context(), attrs, client(t), true)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPlace(t *testing.T) {
	for name, c := range map[string]struct {
		attrs     func(url string) map[string]string
		authorize func(*http.Request) bool
	}{
		"shared key": {
			func(url string) map[string]string {
				return map[string]string{"account_url": url, "account_name": "acme", "secret_access_key": "czNjcmV0", "prefix": "team"}
			},
			func(r *http.Request) bool { return strings.HasPrefix(r.Header.Get("Authorization"), "SharedKey acme:") },
		},
		"signature": {
			func(url string) map[string]string {
				return map[string]string{"account_url": url + "?sig=s3cret", "account_name": "acme", "prefix": "team"}
			},
			func(r *http.Request) bool { return r.URL.Query().Get("sig") == "s3cret" },
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := remotecachetest.NewAzure(t)
			a.Authorize = c.authorize
			attrs := c.attrs(a.URL)
			remotecachetest.TestTarget(t, func(t *testing.T) remotecache.Target { return open(t, attrs) })
			if p := open(t, attrs); strings.Contains(p.Location()+p.Title(), "s3cret") {
				t.Errorf("a secret in %q or %q", p.Location(), p.Title())
			}
			if !slices.Contains(a.Paths(), "/buildkit-cache/team/manifests/buildkit") {
				t.Errorf("wrote %v", a.Paths())
			}
			a.Authorize = func(*http.Request) bool { return false }
			attrs["container"] = "other"
			_, err := New(t.Context(), attrs, client(t), true)
			if err == nil || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("refused: %v", err)
			}
		})
	}
}

func TestAttributes(t *testing.T) {
	good := map[string]string{"account_url": "https://acme.blob.core.windows.net", "secret_access_key": "czNjcmV0"}
	for _, c := range []struct{ key, value, want string }{
		{"container", "c", ""},
		{"account_url", "nonsense", "azure storage account url provided is not a valid url"},
		{"secret_access_key", "", "azblob cache needs secret_access_key"},
		{"secret_access_key", "not base64!", "failed to create shared key"},
	} {
		attrs := maps.Clone(good)
		attrs[c.key] = c.value
		_, err := New(t.Context(), attrs, client(t), false)
		if c.want == "" != (err == nil) || err != nil && !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s=%s: %v, want %q", c.key, c.value, err, c.want)
		}
	}
	if _, err := New(t.Context(), nil, client(t), false); err == nil || !strings.Contains(err.Error(), "account_url attribute is required") {
		t.Errorf("without an account: %v", err)
	}
}
