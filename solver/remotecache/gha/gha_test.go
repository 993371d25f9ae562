package gha

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipwaybuild/slipway/solver/remotecache"
	"github.com/slipwaybuild/slipway/solver/remotecache/remotecachetest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service is GitHub's cache service, version 2: entries are reserved, uploaded to Azure, and final.
type service struct {
	azure *remotecachetest.Azure

	mu      sync.Mutex
	entries []entry
}

type entry struct {
	key, version string
	final        bool
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Key         string   `json:"key"`
		RestoreKeys []string `json:"restore_keys"`
		Version     string   `json:"version"`
	}
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil || !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	answer := map[string]any{"ok": false}
	switch {
	case strings.HasSuffix(r.URL.Path, "/CreateCacheEntry"):
		if s.find(req.Version, func(k string) bool { return k == req.Key }, false) != nil {
			w.WriteHeader(http.StatusConflict)
			answer = map[string]any{"code": "already_exists", "msg": "cache entry with the same key, version, and scope already exists"}
			break
		}
		s.entries = append(s.entries, entry{key: req.Key, version: req.Version})
		answer = map[string]any{"ok": true, "signed_upload_url": s.url(req.Key)}
	case strings.HasSuffix(r.URL.Path, "/FinalizeCacheEntryUpload"):
		if e := s.find(req.Version, func(k string) bool { return k == req.Key }, false); e != nil {
			e.final = true
			answer = map[string]any{"ok": true, "entry_id": "1"}
		}
	case strings.HasSuffix(r.URL.Path, "/GetCacheEntryDownloadURL"):
		e := s.find(req.Version, func(k string) bool { return k == req.Key }, true)
		for _, prefix := range req.RestoreKeys {
			if e == nil {
				e = s.find(req.Version, func(k string) bool { return strings.HasPrefix(k, prefix) }, true)
			}
		}
		if e != nil {
			answer = map[string]any{"ok": true, "signed_download_url": s.url(e.key), "matched_key": e.key}
		}
	default:
		w.WriteHeader(http.StatusNotFound)
	}
	_ = json.NewEncoder(w).Encode(answer) // the client may have gone
}

// find returns the newest entry.
func (s *service) find(version string, match func(string) bool, final bool) *entry {
	for i := len(s.entries) - 1; i >= 0; i-- {
		if e := &s.entries[i]; e.version == version && match(e.key) && (e.final || !final) {
			return e
		}
	}
	return nil
}

func (s *service) url(key string) string {
	return s.azure.URL + "/actions/" + base64.RawURLEncoding.EncodeToString([]byte(key)) + "?sig=x"
}

// token is what a workflow has: access to its branch, and to read its base.
func token(t *testing.T, scopes string) string {
	t.Helper()
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	now := time.Now()
	return part(map[string]string{"alg": "HS256", "typ": "JWT"}) + "." +
		part(map[string]any{"ac": scopes, "exp": now.Add(time.Hour).Unix(), "nbf": now.Add(-time.Hour).Unix()}) + "." + part("signature")
}

const (
	branch = `[{"Scope":"refs/heads/branch","Permission":3},{"Scope":"refs/heads/main","Permission":1}]`
	onMain = `[{"Scope":"refs/heads/main","Permission":3}]`
)

func serve(t *testing.T) (attrs map[string]string) {
	t.Helper()
	srv := httptest.NewServer(&service{azure: remotecachetest.NewAzure(t)})
	t.Cleanup(srv.Close)
	return map[string]string{"url_v2": srv.URL + "/", "token": token(t, onMain)}
}

func open(t *testing.T, attrs map[string]string) remotecache.Target {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(c.CloseIdleConnections)
	p, err := New(attrs, c, "test")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPlace(t *testing.T) {
	attrs := serve(t)
	remotecachetest.TestTarget(t, func(t *testing.T) remotecache.Target { return open(t, attrs) })
	http.DefaultClient.CloseIdleConnections() // Azure's client has connections of its own
}

// TestScopes writes on the main branch, and reads and writes on another.
func TestScopes(t *testing.T) {
	attrs := serve(t)
	note := func(string) func() { return func() {} }
	if _, err := open(t, attrs).Save(t.Context(), remotecachetest.Cache("main"), note); err != nil {
		t.Fatal(err)
	}
	mine := maps.Clone(attrs)
	mine["token"] = token(t, branch)
	if _, err := open(t, mine).Save(t.Context(), remotecachetest.Cache("branch"), note); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		attrs map[string]string
		want  string
	}{"main": {attrs, "[RUN main]"}, "branch": {mine, "[RUN branch RUN main]"}} {
		list, err := open(t, c.attrs).Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, cache := range list {
			names = append(names, cache.Entries[0].Name)
		}
		if fmt.Sprint(names) != c.want {
			t.Errorf("%s sees %v, want %s", name, names, c.want)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestAttributes(t *testing.T) {
	good := map[string]string{"token": "t", "url": "https://old.example/", "url_v2": "https://new.example/"}
	for _, c := range []struct {
		set, drop, want string
		url             string
		v2              bool
	}{
		{url: "https://new.example/", v2: true},
		{set: "version=1", url: "https://old.example/"},
		{drop: "url_v2", url: "https://old.example/"},
		{drop: "url_v2", set: "url=https://results-receiver.actions.githubusercontent.com/x", url: "https://results-receiver.actions.githubusercontent.com/x", v2: true},
		{drop: "token", want: "token not set for github actions cache"},
		{drop: "url_v2", set: "url=", want: "url not set for github actions cache"},
		{set: "timeout=soon", want: "failed to parse timeout"},
		{set: "version=two", want: `failed to parse api version "two"`},
	} {
		attrs := maps.Clone(good)
		delete(attrs, c.drop)
		if k, v, ok := strings.Cut(c.set, "="); ok {
			attrs[k] = v
		}
		got, err := parse(attrs)
		switch {
		case c.want != "":
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("%+v: %v", c, err)
			}
		case err != nil || got.url != c.url || got.v2 != c.v2 || got.scope != "buildkit":
			t.Errorf("%+v: %+v, %v", c, got, err)
		}
	}
}
