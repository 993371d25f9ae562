package engineapi

import (
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/slipwaybuild/slipway/daemon"
)

var hostWorker = (&fakeEngine{}).Worker()

func parseQuery(t testing.TB, query string) (*buildParams, error) {
	t.Helper()
	r := httptest.NewRequest("POST", "http://x/build", nil)
	r.URL.RawQuery = query
	return parseBuild(r)
}

// What CLI 20.10 sends when its user chose nothing: all keys.
const allDefaults = "buildargs=%7B%7D&cachefrom=%5B%5D&cgroupparent=&cpuperiod=0&cpuquota=0&cpusetcpus=&cpusetmems=&cpushares=0&dockerfile=" +
	"&labels=%7B%7D&memory=0&memswap=0&networkmode=default&rm=1&shmsize=0&target=&ulimits=null&version=2"

func TestDefaultsAreTheAbsenceOfParameters(t *testing.T) {
	t.Parallel()
	want := daemon.Request{
		Frontend: "dockerfile.v0", FrontendAttrs: map[string]string{"image-resolve-mode": "local"},
		Outputs: []daemon.Output{{Type: "moby", Attrs: map[string]string{}}},
	}
	for _, query := range []string{allDefaults, "version=2", "version=2&buildargs=null&labels=null&outputs=null&cachefrom=null&ulimits=null&t="} {
		p, err := parseQuery(t, query)
		if err != nil {
			t.Fatal(err)
		}
		got, err := p.request(hostWorker, "")
		want.Ref = got.Ref
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", query, err, diff)
		}
	}
}

func TestEveryParameterHasItsEffect(t *testing.T) {
	t.Parallel()
	q := url.Values{
		"version": {"2"}, "t": {"a", "h.example:5000/b:1", "a:latest", ""}, "dockerfile": {"sub/D"}, "target": {"x"}, "platform": {"linux/arm64"},
		"nocache": {"1"}, "pull": {"1"}, "networkmode": {"host"}, "extrahosts": {"a:1.2.3.4", "b:::1", "c:host-gateway"},
		"buildargs": {`{"A":"1","EMPTY":"","UNSET":null}`}, "labels": {`{"l":"v"}`}, "cachefrom": {`["r/c:1",""]`},
		"memory": {"1000"}, "memswap": {"-1"}, "cpushares": {"2"}, "cpuperiod": {"3"}, "cpuquota": {"4"}, "cpusetcpus": {"0-1"}, "cpusetmems": {"0"},
		"cgroupparent": {"/p"}, "shmsize": {"65536"}, "ulimits": {`[{"Name":"nofile","Hard":456,"Soft":123}]`},
		"outputs": {`[{"Type":"moby","Attrs":null},{"Type":"local","Attrs":{"dest":"d"}},{"Type":"image","Attrs":{"name":"own"}}]`},
		"rm":      {"0"}, "forcerm": {"1"}, "isolation": {"default"},
	}
	p, err := parseQuery(t, q.Encode())
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.request(hostWorker, "http://u/x")
	if err != nil {
		t.Fatal(err)
	}
	want := daemon.Request{
		Ref: got.Ref, Frontend: "dockerfile.v0", Entitlements: []string{"network.host"},
		FrontendAttrs: map[string]string{
			"context": "http://u/x", "filename": "sub/D", "target": "x", "platform": "linux/arm64", "no-cache": "", "image-resolve-mode": "pull",
			"force-network-mode": "host", "add-hosts": "a=1.2.3.4,b=::1,c=127.0.0.1", "build-arg:A": "1", "build-arg:EMPTY": "", "label:l": "v",
			"cache-imports": `[{"Type":"registry","Attrs":{"ref":"r/c:1"}}]`, "memory": "1000", "memswap": "-1", "cpushares": "2", "cpuperiod": "3",
			"cpuquota": "4", "cpusetcpus": "0-1", "cpusetmems": "0", "cgroup-parent": "/p", "shm-size": "65536", "ulimit": "nofile=123:456",
		},
		Outputs: []daemon.Output{
			{Type: "moby", Attrs: map[string]string{"name": "docker.io/library/a:latest,h.example:5000/b:1"}},
			{Type: "local", Attrs: map[string]string{"dest": "d"}},
			{Type: "image", Attrs: map[string]string{"name": "own"}},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestBadParametersAreRefused(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]string{
		"version=3":                       `invalid version "3"`,
		"version=1&remote=client-session": "experimental session with v1 builder is no longer supported, use builder version v2 (BuildKit) instead",
		"version=2&t=Upper":               "invalid reference format: repository name (library/Upper) must be lowercase",
		"version=2&t=a@sha256:" + strings.Repeat("a", 64): "build tag cannot contain a digest",
		"version=2&platform=bogus/nope/x/y":               "cannot parse platform specifier",
		"version=2&buildargs=x":                           "error reading build args: invalid character",
		"version=2&labels=[]":                             "error reading labels: ",
		"version=2&ulimits={}":                            "error reading ulimit settings: ",
		"version=2&outputs=[{}]":                          "an output without a type",
		"version=2&remote=nowhere":                        `remote "nowhere" is neither a git repository nor an http(s) URL`,
		"version=2&remote=file:///etc":                    "is neither",
		"version=2&memory=lots":                           `parameter memory: "lots" is no whole number`,
		"version=2&cpushares=-2":                          "parameter cpushares: -2 is less than 0",
		"version=2&isolation=hyperv":                      `isolation "hyperv" is not supported on linux`,
		"version=2&isolation=odd":                         `Unsupported isolation: "odd"`,
		"version=2&squash=1":                              "squash is only supported with experimental mode",
		"version=2&securityopt=%5B%22a%22%5D":             "does not support setting security options on build",
		"version=2&buildid=" + strings.Repeat("x", 600):   "build ID of 600 bytes",
	} {
		if _, err := parseQuery(t, query); err == nil || !strings.Contains(err.Error(), want) || statusOf(err) != 400 {
			t.Errorf("%s: %v, want %q", query, err, want)
		}
	}
	for query, want := range map[string]string{
		"version=2&networkmode=container:x":   `network mode "container:x" not supported by buildkit`,
		"version=2&extrahosts=nocolon":        "invalid host nocolon",
		"version=2&extrahosts=a,b:1.2.3.4":    "invalid host a,b:1.2.3.4",
		"version=2&extrahosts=a:1.2.3":        "invalid host a:1.2.3",
		"version=2&extrahosts=a:host-gateway": "steps have no way to this host",
	} {
		p, err := parseQuery(t, query)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.request(daemon.Worker{}, ""); err == nil || !strings.Contains(err.Error(), want) || statusOf(err) != 400 {
			t.Errorf("%s: %v, want %q", query, err, want)
		}
	}
}

func FuzzBuildParams(f *testing.F) {
	f.Add(allDefaults)
	f.Add("t=a&t=b:1&outputs=%5B%7B%22Type%22%3A%22local%22%7D%5D&version=2&extrahosts=a:1.2.3.4&ulimits=%5B%7B%22Name%22%3A%22a%22%7D%5D")
	f.Add("version=1&platform=a/b&memory=-1&cachefrom=%5B%22%22%5D")
	f.Fuzz(func(t *testing.T, query string) {
		p, err := parseQuery(t, query)
		if err != nil {
			if code := statusOf(err); code != 400 {
				t.Errorf("%q: status %d of %v", query, code, err)
			}
			return
		}
		r, err := p.request(hostWorker, "")
		if err != nil {
			if code := statusOf(err); code != 400 {
				t.Errorf("%q: status %d of %v", query, code, err)
			}
			return
		}
		if r.Ref == "" || len(r.Outputs) == 0 || strings.Count(r.FrontendAttrs["add-hosts"], ",") >= max(1, len(p.hosts)) {
			t.Errorf("%q becomes %+v", query, r)
		}
	})
}
