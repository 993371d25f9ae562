package engineapi

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestRouterFindsNamesWithSlashes(t *testing.T) {
	t.Parallel()
	var got string
	named := func(what string) handler {
		return func(_ http.ResponseWriter, r *http.Request) error {
			got = what + " " + r.PathValue("name")
			return nil
		}
	}
	rt := newRouter([]route{
		{"GET", "/images/json", named("list")},
		{"GET", "/images/{name...}/json", named("inspect")},
		{"POST", "/images/{name...}/tag", named("tag")},
		{"DELETE", "/images/{name...}", named("remove")},
		{"GET", "/volumes/{name}", named("volume")},
		{"", "/volumes/{rest...}", named("else")},
	})
	for _, test := range []struct{ method, path, want string }{
		{"GET", "/images/json", "list "},
		{"GET", "/images/a/json", "inspect a"},
		{"GET", "/images/h.example:5000/a/b@sha256:c/json", "inspect h.example:5000/a/b@sha256:c"},
		{"GET", "/images/json/json", "inspect json"},
		{"POST", "/images/a/b/tag", "tag a/b"},
		{"DELETE", "/images/a/b", "remove a/b"},
		{"GET", "/volumes/a", "volume a"},
		{"PATCH", "/volumes/a", "else "},
		{"GET", "/volumes/a/b", "else "},
	} {
		got = ""
		r := httptest.NewRequest(test.method, "http://x/", nil)
		if err := rt.find(r, test.path)(nil, r); err != nil || got != test.want {
			t.Errorf("%s %s: %q, %v; want %q", test.method, test.path, got, err, test.want)
		}
	}
	for _, path := range []string{"/images", "/images/", "/images/x", "/volumes", "/", "", "/images/a/jsonx"} {
		r := httptest.NewRequest("GET", "http://x/", nil)
		if err := rt.find(r, path)(nil, r); statusOf(err) != http.StatusNotFound {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestVersions(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		a, b version
		want bool
	}{{version{1, 9}, version{1, 12}, true}, {newest, newest, false}, {version{2, 0}, newest, false}, {newest, version{9, 99}, true}} {
		if got := test.a.less(test.b); got != test.want {
			t.Errorf("%v before %v: %v", test.a, test.b, got)
		}
	}
	if v, rest, given := splitVersion("/v1.24/images/v1.2/json"); !given || v != (version{1, 24}) || rest != "/images/v1.2/json" {
		t.Errorf("%v %v %v", v, rest, given)
	}
	if _, rest, given := splitVersion("/v1.99999999999999999999/x"); given || rest != "/v1.99999999999999999999/x" {
		t.Errorf("%v %v", rest, given)
	}
}
