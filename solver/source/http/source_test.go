package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/secrets"
	"github.com/slipwaybuild/slipway/session/sessiontest"
	"github.com/slipwaybuild/slipway/session/upload"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"github.com/slipwaybuild/slipway/solver/source"
)

type fixture struct {
	t      *testing.T
	store  *layers.Store
	source *Source
	m      *session.Manager
	dial   session.Dialer
}

func newFixture(t *testing.T, change func(*Options)) *fixture {
	t.Helper()
	f := &fixture{t: t}
	var err error
	if f.store, err = layers.Open(t.Context(), layers.Options{Root: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.store.Close(); err != nil {
			t.Errorf("close store: %v", err)
		}
	})
	f.m = sessiontest.NewManager(t, session.ManagerOptions{Wait: 2 * time.Second})
	f.dial = sessiontest.HTTP(t, f.m)
	o := Options{Store: f.store, Sessions: f.m, Root: t.TempDir()}
	if change != nil {
		change(&o)
	}
	if f.source, err = New(o); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) client(services ...session.Attachable) source.Env {
	s := session.New(session.Options{})
	s.Allow(services...)
	id := sessiontest.Run(f.t, f.m, f.dial, s).ID()
	return source.Env{Sessions: func() *session.Group { return f.m.Group(id) }}
}

func (f *fixture) nobody() source.Env {
	return source.Env{Sessions: func() *session.Group { return f.m.Group() }}
}

// got is what a request gave.
type got struct {
	entry fstree.Entry
	body  string
	key   solver.Parts
}

func (f *fixture) get(env source.Env, url string, attrs map[string]string) (g got, err error) {
	f.t.Helper()
	ctx := f.t.Context()
	p, err := f.source.Pin(ctx, env, source.Request{Identifier: url, Attrs: attrs})
	if err != nil {
		return g, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	g.key = p.Key()
	ref, err := p.Fetch(ctx, env)
	if err != nil {
		return g, err
	}
	defer func() { err = errors.Join(err, ref.Release()) }()
	t, err := f.store.Tree(ctx, ref)
	if err != nil {
		return g, err
	}
	entries, err := t.ReadDir(ctx, "")
	if err != nil || len(entries) != 1 {
		return g, fmt.Errorf("%d entries, %w", len(entries), err)
	}
	g.entry = entries[0]
	b, err := fstree.ReadFile(ctx, t, g.entry.Path, 1<<20)
	g.body = string(b)
	return g, err
}

func (f *fixture) mustGet(url string, attrs map[string]string) got {
	f.t.Helper()
	g, err := f.get(f.nobody(), url, attrs)
	if err != nil {
		f.t.Fatal(err)
	}
	return g
}

// server serves one file and counts.
type server struct {
	*httptest.Server
	mu     sync.Mutex
	body   string
	header http.Header
	asked  atomic.Int64 // requests
	sent   atomic.Int64 // bodies
	// deaf ignores conditions.
	deaf bool
}

func newServer(t *testing.T, body string, header map[string]string) *server {
	s := &server{body: body, header: http.Header{}}
	for k, v := range header {
		s.header.Set(k, v)
	}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		s.mu.Lock()
		defer s.mu.Unlock()
		for k, v := range s.header {
			w.Header()[k] = v
		}
		tag, modified := s.header.Get("ETag"), s.header.Get("Last-Modified")
		if !s.deaf && (tag != "" && r.Header.Get("If-None-Match") == tag || modified != "" && r.Header.Get("If-Modified-Since") == modified) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		s.sent.Add(1)
		_, _ = io.WriteString(w, s.body)
	}))
	t.Cleanup(s.Close)
	return s
}

func TestGet(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	modified := time.Date(2020, 2, 3, 4, 5, 6, 0, time.UTC)
	s := newServer(t, "hello", map[string]string{"Last-Modified": modified.Format(http.TimeFormat)})
	g := f.mustGet(s.URL+"/dir/file.txt?x=1", nil)
	if g.body != "hello" || g.entry.Path != "file.txt" || g.entry.Mode != fstree.ModeRegular|0o600 || !g.entry.ModTime.Equal(modified) {
		t.Errorf("%+v", g)
	}
	g = f.mustGet(s.URL+"/dir/file.txt", map[string]string{"http.filename": "../other", "http.perm": "0755", "http.uid": "5", "http.gid": "6"})
	if g.entry.Path != "other" || g.entry.Mode&0o7777 != 0o755 || g.entry.UID != 5 || g.entry.GID != 6 {
		t.Errorf("%+v", g.entry)
	}
	s.header.Set("Content-Disposition", `attachment; filename="/etc/named.tar"`)
	if g := f.mustGet(s.URL+"/x", nil); g.entry.Path != "named.tar" {
		t.Errorf("name %q", g.entry.Path)
	}
	s.header = http.Header{}
	if g := f.mustGet(s.URL+"/", nil); g.entry.Path != "download" || g.entry.ModTime.Unix() != 0 {
		t.Errorf("%+v", g.entry)
	}
}

func TestRevalidation(t *testing.T) {
	t.Parallel()
	old := time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat)
	young := time.Now().UTC().Format(http.TimeFormat)
	for name, c := range map[string]struct {
		header map[string]string
		deaf   bool
		sent   int64
	}{
		"etag":               {map[string]string{"ETag": `"1"`}, false, 1},
		"weak etag":          {map[string]string{"ETag": `W/"1"`}, false, 1},
		"etag, deaf":         {map[string]string{"ETag": `"1"`}, true, 2}, // sent, but not read or kept
		"last modified":      {map[string]string{"Last-Modified": old}, false, 1},
		"last modified now":  {map[string]string{"Last-Modified": young}, false, 2},
		"nothing to compare": {nil, false, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, nil)
			s := newServer(t, "v1", c.header)
			s.deaf = c.deaf
			one, two := f.mustGet(s.URL+"/f", nil), f.mustGet(s.URL+"/f", nil)
			if one.body != "v1" || two.body != "v1" || fmt.Sprint(one.key) != fmt.Sprint(two.key) {
				t.Errorf("%+v, then %+v", one, two)
			}
			if n := s.sent.Load(); n != c.sent {
				t.Errorf("sent %d times, want %d", n, c.sent)
			}
			s.mu.Lock()
			s.body = "v2"
			for _, k := range []string{"ETag", "Last-Modified"} {
				if s.header.Get(k) != "" {
					s.header.Set(k, strings.Map(func(r rune) rune {
						if r == '1' {
							return '2'
						}
						return r
					}, s.header.Get(k)))
				}
			}
			if c.header["Last-Modified"] != "" {
				s.header.Set("Last-Modified", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
			}
			s.mu.Unlock()
			if g := f.mustGet(s.URL+"/f", nil); g.body != "v2" || fmt.Sprint(g.key) == fmt.Sprint(one.key) {
				t.Errorf("after the change %+v", g)
			}
		})
	}
}

// Links that are signed for GET answer no HEAD.
func TestRevalidationWithoutHead(t *testing.T) {
	t.Parallel()
	var sent atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"1"`)
		switch {
		case r.Method == http.MethodHead:
			w.Header().Del("ETag")
			w.WriteHeader(http.StatusForbidden)
		case r.Header.Get("If-None-Match") == `"1"`:
			w.WriteHeader(http.StatusNotModified)
		default:
			sent.Add(1)
			_, _ = io.WriteString(w, "v1")
		}
	}))
	defer srv.Close()
	f := newFixture(t, nil)
	for range 2 {
		if g := f.mustGet(srv.URL+"/f", nil); g.body != "v1" {
			t.Errorf("%+v", g)
		}
	}
	if n := sent.Load(); n != 1 {
		t.Errorf("sent %d times", n)
	}
}

func TestChecksum(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	s := newServer(t, "hello", nil)
	for i, sum := range []digest.Digest{digest.FromString("hello"), digest.SHA384.FromString("hello"), digest.SHA512.FromString("hello")} {
		attrs := map[string]string{"http.checksum": sum.String()}
		p, err := f.source.Pin(t.Context(), f.nobody(), source.Request{Identifier: s.URL + "/f", Attrs: attrs})
		if err != nil {
			t.Fatal(err)
		}
		if n := s.asked.Load(); n != int64(i) {
			t.Errorf("pinning a checksum asked %d times", n-int64(i))
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		for range 2 {
			if g := f.mustGet(s.URL+"/f", attrs); g.body != "hello" {
				t.Errorf("%+v", g)
			}
		}
		// Known content is not fetched again, wherever it is now.
		if g, err := f.get(f.nobody(), "http://gone.invalid/f", attrs); err != nil || g.body != "hello" {
			t.Errorf("%+v, %v", g, err)
		}
	}
	if n := s.asked.Load(); n != 3 {
		t.Errorf("asked %d times", n)
	}
	want := digest.FromString("other")
	_, err := f.get(f.nobody(), strings.Replace(s.URL, "://", "://user:pass@", 1)+"/f", map[string]string{"http.checksum": want.String()})
	text := fmt.Sprintf("digest mismatch for %s/f: %s (expected: %s)", s.URL, digest.FromString("hello"), want)
	var mismatch *DigestMismatchError
	if !errors.As(err, &mismatch) || err.Error() != text {
		t.Errorf("error %v", err)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(o *Options) { o.Limit = 10 })
	mux := http.NewServeMux()
	mux.HandleFunc("/status/{n}", func(w http.ResponseWriter, r *http.Request) {
		var n int
		_, _ = fmt.Sscan(r.PathValue("n"), &n)
		w.WriteHeader(n)
	})
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/long", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("x", 11)) })
	mux.HandleFunc("/chunked", func(w http.ResponseWriter, _ *http.Request) {
		for range 11 {
			_, _ = io.WriteString(w, "x")
			w.(http.Flusher).Flush()
		}
	})
	mux.HandleFunc("/cut", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "9")
		_, _ = io.WriteString(w, "x")
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	base := strings.Replace(s.URL, "://", "://user:hush@", 1)
	for path, want := range map[string]string{
		"/status/404": "invalid response status 404", "/status/500": "invalid response status 500", "/loop": "redirects",
		"/long": "larger than 10 bytes", "/chunked": "larger than 10 bytes", "/cut": "unexpected EOF", "/%zz": "invalid URL escape",
	} {
		_, err := f.get(f.nobody(), base+path, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
		if err != nil && strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: password in error: %v", path, err)
		}
	}
	for attr, v := range map[string]string{"http.checksum": "md5:x", "http.perm": "rw", "http.sig.pubkey": "half"} {
		if _, err := f.get(f.nobody(), s.URL, map[string]string{attr: v}); err == nil {
			t.Errorf("%s=%s was taken", attr, v)
		}
	}
	down := httptest.NewServer(mux)
	down.Close()
	_, err := f.get(f.nobody(), strings.Replace(down.URL, "://", "://user:hush@", 1)+"/f", nil)
	if err == nil || strings.Contains(err.Error(), "hush") {
		t.Errorf("server down: %v", err)
	}
}

func TestAuthorization(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("Authorization")+"|"+r.Header.Get("Accept")+"|"+r.Header.Get("X-Other"))
	}))
	t.Cleanup(s.Close)
	env := f.client(secrets.FromStore(secrets.Map{"mine": []byte("Basic abc\n"), "HTTP_AUTH_TOKEN_127.0.0.1": []byte("tok")}))
	for _, c := range []struct {
		env   source.Env
		attrs map[string]string
		want  string
	}{
		{env, map[string]string{"http.authheadersecret": "mine"}, "Basic abc||"},
		{env, map[string]string{"http.header.accept": "text/x", "http.header.x-other": "no"}, "Bearer tok|text/x|"},
		{f.nobody(), nil, "||"},
	} {
		if g, err := f.get(c.env, s.URL+"/f", c.attrs); err != nil || g.body != c.want {
			t.Errorf("%v: %q, %v", c.attrs, g.body, err)
		}
	}
	if _, err := f.get(env, s.URL+"/f", map[string]string{"http.authheadersecret": "nope"}); !errors.Is(err, secrets.ErrNotFound) {
		t.Errorf("missing secret: %v", err)
	}
}

func TestUpload(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	up := upload.New()
	env := f.client(up)
	url := up.Add(io.NopCloser(strings.NewReader("context")))
	ctx := context.Background()
	first, err := f.source.Pin(ctx, env, source.Request{Identifier: url})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := first.Close(); err != nil {
			t.Error(err)
		}
	}()
	// The client gives it once; a build that pins it again while it holds it gets the same.
	if g, err := f.get(env, url, nil); err != nil || g.body != "context" {
		t.Errorf("%+v, %v", g, err)
	}
	if _, err := f.get(f.client(upload.New()), url, nil); !errors.Is(err, upload.ErrNotFound) {
		t.Errorf("another client: %v", err)
	}
}

func TestConcurrent(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	s := newServer(t, strings.Repeat("x", 100_000), map[string]string{"ETag": `"1"`})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if g, err := f.get(f.nobody(), s.URL+"/f", nil); err != nil || len(g.body) != 100_000 {
				t.Errorf("%d bytes, %v", len(g.body), err)
			}
		})
	}
	wg.Wait()
	if n := s.sent.Load(); n != 1 {
		t.Errorf("sent %d times", n)
	}
}
