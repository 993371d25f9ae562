package registry

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestMergeScopes(t *testing.T) {
	for _, tt := range []struct{ in, want []string }{
		{nil, []string{}},
		{[]string{"repository:a/b:pull"}, []string{"repository:a/b:pull"}},
		{[]string{"repository:a:push,pull", "repository:a:pull", "repository:b:pull"}, []string{"repository:a:pull,push", "repository:b:pull"}},
		{[]string{"repository:host:5000/a:pull", "nonsense", ""}, []string{"repository:host:5000/a:pull"}},
	} {
		if got := mergeScopes(tt.in); !slices.Equal(got, tt.want) {
			t.Errorf("%q: %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestParseChallenge(t *testing.T) {
	for _, tt := range []struct {
		headers []string
		want    challenge
		scope   string
		ok      bool
	}{
		{[]string{`Bearer realm="https://auth.example/token",service="reg",scope="repository:a:pull"`}, challenge{realm: "https://auth.example/token", service: "reg"}, "repository:a:pull", true},
		{[]string{`Basic realm="x"`}, challenge{basic: true}, "", true},
		{[]string{`Basic realm="x"`, `Bearer realm="https://a/t"`}, challenge{realm: "https://a/t"}, "", true},
		{[]string{`Bearer service="no realm"`, `Basic`}, challenge{basic: true}, "", true},
		{[]string{`Digest realm="x"`}, challenge{}, "", false},
		{nil, challenge{}, "", false},
	} {
		got, scope, ok := parseChallenge(http.Header{"Www-Authenticate": tt.headers})
		if got != tt.want || scope != tt.scope || ok != tt.ok {
			t.Errorf("%q: %+v %q %v", tt.headers, got, scope, ok)
		}
	}
}

func TestParseMirror(t *testing.T) {
	for s, want := range map[string]endpointKey{
		"mirror.example":              {host: "mirror.example", mirror: true},
		"mirror.example:5000/a/b/":    {host: "mirror.example:5000", mirror: true},
		"http://mirror.example/cache": {host: "mirror.example", mirror: true, scheme: "http"},
		"[::1]:5000":                  {host: "[::1]:5000", mirror: true},
	} {
		if got, _, err := parseMirror(s); err != nil || got != want {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "/path", "ftp://host", "https://user:secret@host", "host?x=secret", "ho st"} {
		if got, _, err := parseMirror(s); err == nil || strings.Contains(err.Error(), "secret") && strings.Contains(s, "://") {
			t.Errorf("%q: %+v, %v; want an error without secrets", s, got, err)
		}
	}
}

func TestLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "localhost:5000": true, "127.0.0.1": true, "127.8.9.1:80": true, "[::1]:5000": true, "::1": true,
		"example.com": false, "10.0.0.1:5000": false, "localhost.example.com": false, "": false,
	} {
		if got := isLoopback(host); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"Get \"https://u:p@host/v2/x?sig=s#f\": refused": "Get \"https://host/v2/x\": refused",
		"no address":      "no address",
		"http://[bad?x=y": "http://…",
	} {
		if got := redact(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// FuzzAnswer reads what a registry may say when it refuses.
func FuzzAnswer(f *testing.F) {
	f.Add(`Bearer realm="https://a/t",service="s",scope="repository:a:pull"`, []byte(`{"errors":[{"code":"DENIED","message":"no"}]}`))
	f.Add(`Basic`, []byte(`{"details":"incorrect username or password"}`))
	f.Add(`Bearer realm="`, []byte(`{"errors":[{"message":"see https://u:p@h/?token=x"}]}`))
	f.Fuzz(func(t *testing.T, header string, body []byte) {
		c, scope, ok := parseChallenge(http.Header{"Www-Authenticate": {header}})
		if ok && !c.basic && c.realm == "" {
			t.Errorf("challenge without realm: %+v", c)
		}
		once := mergeScopes(strings.Fields(scope))
		if twice := mergeScopes(once); !slices.Equal(once, twice) {
			t.Errorf("scopes %q are not canonical: %q", once, twice)
		}
		if m := registryMessage(body); len(m) > 2000 {
			t.Errorf("message of %d bytes", len(m))
		}
	})
}
