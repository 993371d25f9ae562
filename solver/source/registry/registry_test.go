package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/types"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/auth"
	"github.com/slipwaybuild/slipway/session/sessiontest"
	"github.com/slipwaybuild/slipway/solver/source/registry"
	"github.com/slipwaybuild/slipway/solver/source/registry/registrytest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var accounts = map[string]string{"ann": "ann-password", "bob": "bob-password"}

func open(t *testing.T, hosts map[string]registry.HostConfig) *registry.Registry {
	t.Helper()
	r, err := registry.New(registry.Options{Hosts: hosts, Backoff: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// trusting returns the configuration under which only a server's own certificate counts.
func trusting(s *registrytest.Server) map[string]registry.HostConfig {
	if s.CAFile == "" {
		return nil
	}
	return map[string]registry.HostConfig{s.Host: {CA: []string{s.CAFile}}}
}

func as(g *session.Group) registry.ResolverOptions {
	return registry.ResolverOptions{Sessions: func() *session.Group { return g }}
}

// memory is content by digest.
type memory map[digest.Digest][]byte

func (m memory) add(mediaType string, b []byte) ocispecs.Descriptor {
	d := digest.FromBytes(b)
	m[d] = b
	return ocispecs.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))}
}

func (m memory) ReaderAt(_ context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	b, ok := m[d.Digest]
	if !ok {
		return nil, errdefs.ErrNotFound
	}
	return memoryReader{bytes.NewReader(b)}, nil
}

type memoryReader struct{ *bytes.Reader }

func (r memoryReader) Size() int64  { return r.Reader.Size() }
func (r memoryReader) Close() error { return nil }

// publish pushes an image of one layer and returns its parts.
func publish(t *testing.T, r *registry.Resolver, ref string, size int) (manifest, layer ocispecs.Descriptor, m memory) {
	t.Helper()
	m = memory{}
	layer = m.add(ocispecs.MediaTypeImageLayerGzip, bytes.Repeat([]byte("0123456789abcdef"), size/16))
	config := m.add(ocispecs.MediaTypeImageConfig, []byte(`{"os":"linux","architecture":"amd64"}`))
	manifest = m.add(ocispecs.MediaTypeImageManifest, fmt.Appendf(nil,
		`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[{"mediaType":%q,"digest":%q,"size":%d}]}`,
		ocispecs.MediaTypeImageManifest, config.MediaType, config.Digest, config.Size, layer.MediaType, layer.Digest, layer.Size))
	for _, d := range []ocispecs.Descriptor{layer, config, manifest} {
		if err := r.Push(t.Context(), ref, m, d, nil); err != nil {
			t.Fatal(err)
		}
	}
	return manifest, layer, m
}

func pull(ctx context.Context, r *registry.Resolver, ref string, d ocispecs.Descriptor) ([]byte, error) {
	f, err := r.Fetcher(ctx, ref)
	if err != nil {
		return nil, err
	}
	rc, err := f.Fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(rc)
	return b, errors.Join(err, rc.Close())
}

func TestPushThenPull(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    registrytest.Options
	}{
		{"http", registrytest.Options{}},
		{"https", registrytest.Options{TLS: true}},
		{"http with tokens", registrytest.Options{Auth: registrytest.Bearer, Accounts: accounts}},
		{"https with tokens", registrytest.Options{TLS: true, Auth: registrytest.Bearer, Accounts: accounts, Lifetime: 300}},
		{"https with passwords", registrytest.Options{TLS: true, Auth: registrytest.Basic, Accounts: accounts}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := registrytest.New(t, tt.o)
			g := sessiontest.Pair(t, &registrytest.Client{User: "ann", Password: accounts["ann"], HTTP: s.Client()})
			r := open(t, trusting(s)).Resolver(as(g))
			ref := s.Host + "/team/app:1"
			manifest, layer, m := publish(t, r, ref, 1<<20)

			name, got, err := r.Resolve(t.Context(), ref)
			if err != nil {
				t.Fatal(err)
			}
			if got.Digest != manifest.Digest || got.MediaType != manifest.MediaType || name != ref {
				t.Errorf("resolved to %s %+v, want %+v", name, got, manifest)
			}
			for _, d := range []ocispecs.Descriptor{manifest, layer} {
				b, err := pull(t.Context(), r, ref, d)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(b, m[d.Digest]) {
					t.Errorf("pulled %d bytes of %s that are not those pushed", len(b), d.MediaType)
				}
			}
			if err := r.Push(t.Context(), ref, m, layer, nil); err != nil {
				t.Errorf("pushing what is there: %v", err)
			}
		})
	}
}

func TestMountFromAnotherRepository(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{Auth: registrytest.Bearer, Accounts: accounts})
	g := sessiontest.Pair(t, &registrytest.Client{User: "ann", Password: accounts["ann"], HTTP: s.Client()})
	r := open(t, nil).Resolver(as(g))
	_, layer, _ := publish(t, r, s.Host+"/team/base:1", 4096)
	ref := s.Host + "/team/app:1"
	layer = registry.MountFrom(layer, ref, s.Host+"/team/base:1")
	if other := registry.MountFrom(ocispecs.Descriptor{}, ref, "example.com/team/base:1"); other.Annotations != nil {
		t.Errorf("marked for mounting from another host: %v", other.Annotations)
	}
	s.Forget()
	// The registry of this test keeps blobs for all repositories.
	s.Fault(func(w http.ResponseWriter, q *http.Request) bool {
		if q.Method != http.MethodHead {
			return false
		}
		w.WriteHeader(http.StatusNotFound)
		return true
	})
	p, err := r.Pusher(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	w, err := p.Push(t.Context(), layer)
	if err == nil {
		t.Cleanup(func() { _ = w.Close() })
	}
	asked := false
	for _, q := range s.Requests() {
		asked = asked || q.Method == http.MethodPost && strings.Contains(q.Query, "from=team/base")
	}
	if !asked {
		t.Errorf("no request to mount the layer: %+v", s.Requests())
	}
}

func TestPasswordStaysWithClientThatFetchesTokens(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{TLS: true, Auth: registrytest.Bearer, Accounts: accounts, Lifetime: 300})
	c := &registrytest.Client{User: "ann", Password: accounts["ann"], HTTP: s.Client()}
	reg := open(t, trusting(s))
	r := reg.Resolver(as(sessiontest.Pair(t, c)))
	ref := s.Host + "/private/app:1"
	_, layer, _ := publish(t, r, ref, 4096)
	if _, err := pull(t.Context(), r, ref, layer); err != nil {
		t.Fatal(err)
	}
	if n := c.CredentialsAsked.Load(); n != 0 {
		t.Errorf("the client was asked for its password %d times", n)
	}
	for _, q := range s.Requests() {
		if q.UserAgent != "client" && strings.HasPrefix(q.Authorization, "Basic ") {
			t.Errorf("the daemon sent a password: %+v", q)
		}
	}
	if c.TokensFetched.Load() == 0 {
		t.Error("the client fetched no token")
	}
}

func TestTokensAreCachedForWhoCouldGetThem(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{Auth: registrytest.Bearer, Accounts: accounts, Lifetime: 300})
	client := func(user string) *registrytest.Client {
		return &registrytest.Client{User: user, Password: accounts[user], HTTP: s.Client()}
	}
	reg := open(t, nil)
	ann, annAgain, bob := client("ann"), client("ann"), client("bob")
	ref := s.Host + "/private/app:1"
	publish(t, reg.Resolver(as(sessiontest.Pair(t, ann))), ref, 4096)

	resolve := func(c *registrytest.Client) error {
		_, _, err := reg.Resolver(as(sessiontest.Pair(t, c))).Resolve(t.Context(), ref)
		return err
	}
	if err := resolve(ann); err != nil {
		t.Fatal(err)
	}
	before := ann.TokensFetched.Load()
	if err := resolve(ann); err != nil {
		t.Fatal(err)
	}
	if n := ann.TokensFetched.Load(); n != before {
		t.Errorf("a valid token was fetched again")
	}
	if err := resolve(annAgain); err != nil {
		t.Fatal(err)
	}
	if n := annAgain.TokensFetched.Load(); n != 0 {
		t.Errorf("the same credential in another session fetched %d tokens, want the cached one used", n)
	}
	if err := resolve(bob); err != nil {
		t.Fatal(err)
	}
	if bob.TokensFetched.Load() == 0 {
		t.Error("another credential got a cached token")
	}
	if _, _, err := reg.Resolver(registry.ResolverOptions{}).Resolve(t.Context(), ref); !errors.Is(err, registry.ErrUnauthorized) {
		t.Errorf("without session: %v, want ErrUnauthorized", err)
	}
}

func TestClientThatFetchesNoTokens(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{Auth: registrytest.Bearer, Accounts: accounts})
	reg := open(t, nil)
	ref := s.Host + "/private/app:1"
	ann := &registrytest.Client{User: "ann", Password: accounts["ann"], NoTokens: true}
	publish(t, reg.Resolver(as(sessiontest.Pair(t, ann))), ref, 4096)
	if ann.CredentialsAsked.Load() == 0 {
		t.Error("the client was not asked")
	}
	wrong := &registrytest.Client{User: "ann", Password: "wrong", NoTokens: true}
	_, _, err := reg.Resolver(as(sessiontest.Pair(t, wrong))).Resolve(t.Context(), ref)
	if !errors.Is(err, registry.ErrUnauthorized) {
		t.Fatalf("wrong password: %v, want ErrUnauthorized", err)
	}
	if s := err.Error(); !strings.Contains(s, ref) || !strings.Contains(s, "wrong password") {
		t.Errorf("error does not say what failed and why: %s", s)
	}
}

// witness remembers what it heard of.
type witness struct {
	mu              sync.Mutex
	secrets, tokens map[string]string
}

func (w *witness) Learn(id string, value []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.secrets[id] = string(value)
}

func (w *witness) LearnToken(id string, value []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tokens[id] = string(value)
}

func TestWitnessesHearOfCredentials(t *testing.T) {
	for _, kind := range []registrytest.Auth{registrytest.Basic, registrytest.Bearer} {
		for _, noTokens := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%t", kind, noTokens), func(t *testing.T) {
				s := registrytest.New(t, registrytest.Options{Auth: kind, Accounts: accounts})
				ann := &registrytest.Client{User: "ann", Password: accounts["ann"], NoTokens: noTokens, HTTP: s.Client()}
				w := &witness{secrets: map[string]string{}, tokens: map[string]string{}}
				g := sessiontest.Pair(t, ann).Witnessed(w)
				publish(t, open(t, nil).Resolver(registry.ResolverOptions{Sessions: func() *session.Group { return g }}), s.Host+"/private/app:1", 4096)
				if told := w.secrets["credentials for "+s.Host] == accounts["ann"]; told != (noTokens || kind == registrytest.Basic) {
					t.Errorf("heard of secrets %v", w.secrets)
				}
				if told := w.tokens["token for "+s.Host] != ""; told != (kind == registrytest.Bearer) {
					t.Errorf("heard of tokens %v", w.tokens)
				}
			})
		}
	}
}

func TestOneSessionsRefusalDoesNotFailAnother(t *testing.T) {
	for _, kind := range []registrytest.Auth{registrytest.Basic, registrytest.Bearer} {
		t.Run(string(kind), func(t *testing.T) {
			s := registrytest.New(t, registrytest.Options{Auth: kind, Accounts: accounts})
			m := sessiontest.NewManager(t, session.ManagerOptions{})
			door := sessiontest.HTTP(t, m)
			start := func(user, password string) *session.Group {
				ses := session.New(session.Options{})
				ses.Allow(&registrytest.Client{User: user, Password: password, HTTP: s.Client()})
				return m.Group(sessiontest.Run(t, m, door, ses).ID())
			}
			stranger, ann := start("eve", "guess"), start("ann", accounts["ann"])
			reg := open(t, nil)
			ref := s.Host + "/private/app:1"
			publish(t, reg.Resolver(as(ann)), ref, 4096)
			if _, _, err := reg.Resolver(as(session.Join(stranger, ann))).Resolve(t.Context(), ref); err != nil {
				t.Errorf("with somebody entitled among the sessions: %v", err)
			}
			if _, _, err := reg.Resolver(as(stranger)).Resolve(t.Context(), ref); !errors.Is(err, registry.ErrUnauthorized) {
				t.Errorf("without: %v, want ErrUnauthorized", err)
			}
		})
	}
}

func TestAnonymousPull(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{Auth: registrytest.Bearer, Accounts: accounts, AnonymousPull: true})
	reg := open(t, nil)
	ref := s.Host + "/public/app:1"
	_, layer, _ := publish(t, reg.Resolver(as(sessiontest.Pair(t, &registrytest.Client{User: "ann", Password: accounts["ann"], HTTP: s.Client()}))), ref, 4096)
	for name, o := range map[string]registry.ResolverOptions{
		"no session":           {},
		"session without auth": as(sessiontest.Pair(t)),
	} {
		if _, err := pull(t.Context(), reg.Resolver(o), ref, layer); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRevokedTokenIsFetchedAgain(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{Auth: registrytest.Bearer, Accounts: accounts, Lifetime: 300})
	r := open(t, nil).Resolver(as(sessiontest.Pair(t, &registrytest.Client{User: "ann", Password: accounts["ann"], HTTP: s.Client()})))
	ref := s.Host + "/private/app:1"
	_, layer, m := publish(t, r, ref, 4<<20)
	// In the middle of a pull: the first connection ends, and by then the token is worth nothing.
	var once sync.Once
	s.Fault(func(w http.ResponseWriter, q *http.Request) bool {
		cut := false
		if q.Method == http.MethodGet && strings.Contains(q.URL.Path, "/blobs/") {
			once.Do(func() { cut = true })
		}
		if cut {
			s.Revoke()
			sendHalf(w, m[layer.Digest])
		}
		return cut
	})
	b, err := pull(t.Context(), r, ref, layer)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, m[layer.Digest]) {
		t.Error("wrong bytes")
	}
}

// sendHalf sends the beginning of an answer and cuts the connection.
func sendHalf(w http.ResponseWriter, b []byte) {
	w.Header().Set("Content-Length", fmt.Sprint(len(b)))
	_, _ = w.Write(b[:len(b)/2]) // the rest fails on purpose
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
	panic(http.ErrAbortHandler)
}

func TestInterruptedDownloadGoesOnWhereItWas(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{})
	r := open(t, nil).Resolver(registry.ResolverOptions{})
	ref := s.Host + "/app:1"
	_, layer, m := publish(t, r, ref, 4<<20)
	s.Forget()
	cuts := 0
	var mu sync.Mutex
	s.Fault(func(w http.ResponseWriter, q *http.Request) bool {
		if q.Method != http.MethodGet || !strings.Contains(q.URL.Path, "/blobs/") {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		b := m[layer.Digest]
		var offset int
		if _, err := fmt.Sscanf(q.Header.Get("Range"), "bytes=%d-", &offset); err == nil {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", offset, len(b)-1, len(b)))
		}
		rest := b[offset:]
		w.Header().Set("Content-Length", fmt.Sprint(len(rest)))
		if offset > 0 {
			w.WriteHeader(http.StatusPartialContent)
		}
		if cuts++; cuts <= 3 {
			_, _ = w.Write(rest[:len(rest)/2])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write(rest)
		return true
	})
	b, err := pull(t.Context(), r, ref, layer)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, m[layer.Digest]) {
		t.Error("wrong bytes")
	}
	ranges := 0
	for _, q := range s.Requests() {
		if q.Range != "" && q.Range != "bytes=0-" {
			ranges++
		}
	}
	if ranges != 3 {
		t.Errorf("%d requests for the rest, want 3: %+v", ranges, s.Requests())
	}
}

func TestUnwellRegistryIsAskedAgain(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{})
	r := open(t, nil).Resolver(registry.ResolverOptions{})
	ref := s.Host + "/app:1"
	publish(t, r, ref, 4096)
	for _, code := range []int{429, 500, 502, 503} {
		left := 2
		s.Fault(func(w http.ResponseWriter, _ *http.Request) bool {
			if left--; left >= 0 {
				w.Header().Set("Retry-After", "0")
				w.WriteHeader(code)
			}
			return left >= 0
		})
		if _, _, err := r.Resolve(t.Context(), ref); err != nil {
			t.Errorf("%d twice, then well: %v", code, err)
		}
	}
	s.Forget()
	s.Fault(func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	_, _, err := r.Resolve(t.Context(), ref)
	var status *registry.StatusError
	if !errors.As(err, &status) || status.Code != http.StatusServiceUnavailable || !registry.IsUnreachable(err) {
		t.Errorf("503 for good: %v", err)
	}
	if n := len(s.Requests()); n != 4 {
		t.Errorf("asked %d times, want 4", n)
	}
}

func TestErrorsSayWhatFailedAndNoSecret(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{})
	r := open(t, nil).Resolver(registry.ResolverOptions{})
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := dead.Addr().String()
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	_, _, err = r.Resolve(t.Context(), host+"/app:1")
	if want := fmt.Sprintf("resolve %s/app:1: registry %[1]s cannot be reached: connection refused", host); err == nil || err.Error() != want {
		t.Errorf("unreachable: %v, want %s", err, want)
	}
	_, _, err = r.Resolve(t.Context(), s.Host+"/none:1")
	if want := fmt.Sprintf("resolve %s/none:1: not found", s.Host); !errdefs.IsNotFound(err) || err.Error() != want {
		t.Errorf("missing: %v, want %s", err, want)
	}
	// A redirect to a signed URL that fails.
	s.Fault(func(w http.ResponseWriter, q *http.Request) bool {
		http.Redirect(w, q, "http://user:word@"+host+"/blob?signature=topsecret", http.StatusTemporaryRedirect)
		return true
	})
	_, err = pull(t.Context(), r, s.Host+"/app:1", ocispecs.Descriptor{Digest: digest.FromString("x"), Size: 1, MediaType: ocispecs.MediaTypeImageLayer})
	if err == nil || strings.Contains(err.Error(), "topsecret") || strings.Contains(err.Error(), "word") {
		t.Errorf("redirected: %v", err)
	}
}

func TestCredentialsDoNotFollowRedirects(t *testing.T) {
	other := registrytest.New(t, registrytest.Options{})
	s := registrytest.New(t, registrytest.Options{Auth: registrytest.Basic, Accounts: accounts})
	r := open(t, nil).Resolver(as(sessiontest.Pair(t, &registrytest.Client{User: "ann", Password: accounts["ann"]})))
	ref := s.Host + "/app:1"
	_, layer, m := publish(t, r, ref, 4096)
	other.Fault(func(w http.ResponseWriter, _ *http.Request) bool {
		_, _ = w.Write(m[layer.Digest])
		return true
	})
	s.Fault(func(w http.ResponseWriter, q *http.Request) bool {
		if q.Header.Get("Authorization") == "" {
			return false
		}
		http.Redirect(w, q, "http://"+other.Host+"/blob", http.StatusTemporaryRedirect)
		return true
	})
	if _, err := pull(t.Context(), r, ref, layer); err != nil {
		t.Fatal(err)
	}
	for _, q := range other.Requests() {
		if q.Authorization != "" {
			t.Errorf("credentials went to another host: %+v", q)
		}
	}
}

func TestMirrors(t *testing.T) {
	origin, mirror := registrytest.New(t, registrytest.Options{}), registrytest.New(t, registrytest.Options{})
	reg := open(t, map[string]registry.HostConfig{origin.Host: {Mirrors: []string{"127.0.0.1:1", mirror.Host + "/cache"}}})
	plain := open(t, nil).Resolver(registry.ResolverOptions{})
	manifest, layer, m := publish(t, plain, origin.Host+"/app:1", 4096)
	r := reg.Resolver(registry.ResolverOptions{})

	t.Run("falls back to the origin", func(t *testing.T) {
		if b, err := pull(t.Context(), r, origin.Host+"/app:1", layer); err != nil || !bytes.Equal(b, m[layer.Digest]) {
			t.Errorf("%d bytes, %v", len(b), err)
		}
	})
	t.Run("is asked first", func(t *testing.T) {
		publish(t, plain, mirror.Host+"/cache/app:1", 4096)
		origin.Forget()
		if _, d, err := r.Resolve(t.Context(), origin.Host+"/app:1"); err != nil || d.Digest != manifest.Digest {
			t.Errorf("%v, %v", d, err)
		}
		if n := len(origin.Requests()); n != 0 {
			t.Errorf("the origin was asked %d times", n)
		}
	})
	t.Run("gets no push", func(t *testing.T) {
		mirror.Forget()
		publish(t, r, origin.Host+"/other:1", 4096)
		for _, q := range mirror.Requests() {
			if q.Method != http.MethodGet && q.Method != http.MethodHead {
				t.Errorf("pushed to the mirror: %+v", q)
			}
		}
	})
}

func TestCertificates(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{TLS: true})
	no := false
	yes := true
	ref := s.Host + "/app:1"
	publish(t, open(t, trusting(s)).Resolver(registry.ResolverOptions{}), ref, 4096)
	for _, tt := range []struct {
		name string
		c    registry.HostConfig
		o    registry.ResolverOptions
		ok   bool
	}{
		{"loopback by default", registry.HostConfig{}, registry.ResolverOptions{}, true},
		{"not insecure", registry.HostConfig{Insecure: &no}, registry.ResolverOptions{}, false},
		{"insecure", registry.HostConfig{Insecure: &yes}, registry.ResolverOptions{}, true},
		{"insecure for one push", registry.HostConfig{Insecure: &no}, registry.ResolverOptions{Insecure: true}, true},
		{"own CA", registry.HostConfig{Insecure: &no, CA: []string{s.CAFile}}, registry.ResolverOptions{}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := open(t, map[string]registry.HostConfig{s.Host: tt.c}).Resolver(tt.o).Resolve(t.Context(), ref)
			if (err == nil) != tt.ok {
				t.Errorf("got %v, want success: %v", err, tt.ok)
			}
			if err != nil && registry.IsUnreachable(err) {
				t.Errorf("an untrusted certificate counts as unreachable: %v", err)
			}
		})
	}
	if _, err := registry.New(registry.Options{Hosts: map[string]registry.HostConfig{"a": {CA: []string{"/does/not/exist"}}}}); err == nil {
		t.Error("a missing CA file is no error")
	}
}

func TestCancel(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{})
	r := open(t, nil).Resolver(registry.ResolverOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	s.Fault(func(_ http.ResponseWriter, q *http.Request) bool {
		cancel()
		<-q.Context().Done()
		return true
	})
	if _, _, err := r.Resolve(ctx, s.Host+"/app:1"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

// TestDockersCredentials has a client of ours, which reads docker's configuration, meet all kinds of registries.
func TestDockersCredentials(t *testing.T) {
	for _, kind := range []registrytest.Auth{registrytest.None, registrytest.Basic, registrytest.Bearer} {
		t.Run("kind "+string(kind), func(t *testing.T) {
			s := registrytest.New(t, registrytest.Options{TLS: true, Auth: kind, Accounts: accounts, Lifetime: 300})
			c := configfile.New("config.json")
			c.AuthConfigs = map[string]types.AuthConfig{s.Host: {Username: "ann", Password: accounts["ann"], ServerAddress: s.Host}}
			r := open(t, trusting(s)).Resolver(as(sessiontest.Pair(t, auth.New(auth.Options{
				ConfigFile: func() (*configfile.ConfigFile, error) { return c, nil },
				SeedDir:    t.TempDir(), HTTPClient: s.Client(),
			}))))
			ref := s.Host + "/private/app:1"
			_, layer, m := publish(t, r, ref, 4096)
			if b, err := pull(t.Context(), r, ref, layer); err != nil || !bytes.Equal(b, m[layer.Digest]) {
				t.Errorf("%d bytes, %v", len(b), err)
			}
			for _, q := range s.Requests() {
				if kind != registrytest.Basic && q.UserAgent == "slipway" && strings.HasPrefix(q.Authorization, "Basic ") {
					t.Errorf("the daemon sent a password: %+v", q)
				}
			}
		})
	}
}

func TestDownloadThatStandsStillIsTakenUpAgain(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{})
	reg, err := registry.New(registry.Options{Backoff: time.Millisecond, Idle: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close()
	r := reg.Resolver(registry.ResolverOptions{})
	ref := s.Host + "/app:1"
	_, layer, m := publish(t, r, ref, 1<<20)
	var once sync.Once
	s.Fault(func(w http.ResponseWriter, q *http.Request) bool {
		stall := false
		if q.Method == http.MethodGet && strings.Contains(q.URL.Path, "/blobs/") {
			once.Do(func() { stall = true })
		}
		if stall {
			b := m[layer.Digest]
			w.Header().Set("Content-Length", fmt.Sprint(len(b)))
			_, _ = w.Write(b[:len(b)/2])
			w.(http.Flusher).Flush()
			<-q.Context().Done()
		}
		return stall
	})
	if b, err := pull(t.Context(), r, ref, layer); err != nil || !bytes.Equal(b, m[layer.Digest]) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func TestInterruptedUploadBeginsAgain(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{})
	r := open(t, nil).Resolver(registry.ResolverOptions{})
	ref := s.Host + "/app:1"
	var once sync.Once
	cut := false
	s.Fault(func(w http.ResponseWriter, q *http.Request) bool {
		if q.Method == http.MethodPut && strings.Contains(q.URL.Path, "/blobs/") {
			once.Do(func() {
				cut = true
				_, _ = io.CopyN(io.Discard, q.Body, 1000)
				panic(http.ErrAbortHandler)
			})
		}
		return false
	})
	_, layer, m := publish(t, r, ref, 4<<20)
	if !cut {
		t.Fatal("no upload was cut off")
	}
	s.Fault(nil)
	if b, err := pull(t.Context(), r, ref, layer); err != nil || !bytes.Equal(b, m[layer.Digest]) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func TestPushTellsHowFarItIs(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{})
	r := open(t, nil).Resolver(registry.ResolverOptions{})
	m := memory{}
	d := m.add(ocispecs.MediaTypeImageLayer, bytes.Repeat([]byte("x"), 1<<20))
	var last int64
	if err := r.Push(t.Context(), s.Host+"/app:1", m, d, func(n int64) { last = n }); err != nil {
		t.Fatal(err)
	}
	if last != d.Size {
		t.Errorf("told of %d bytes of %d", last, d.Size)
	}
}

func TestLayerThatMustNotBeDistributedComesFromItsURL(t *testing.T) {
	s, other := registrytest.New(t, registrytest.Options{}), registrytest.New(t, registrytest.Options{})
	r := open(t, nil).Resolver(registry.ResolverOptions{})
	text := []byte("text")
	other.Fault(func(w http.ResponseWriter, _ *http.Request) bool {
		_, _ = w.Write(text)
		return true
	})
	d := ocispecs.Descriptor{
		MediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
		Digest:    digest.FromBytes(text), Size: int64(len(text)),
		URLs: []string{"file:///etc/passwd", "http://" + other.Host + "/layer"},
	}
	if b, err := pull(t.Context(), r, s.Host+"/app:1", d); err != nil || string(b) != "text" {
		t.Errorf("%q, %v", b, err)
	}
	d.MediaType = ocispecs.MediaTypeImageLayerGzip
	if _, err := pull(t.Context(), r, s.Host+"/app:1", d); !errdefs.IsNotFound(err) {
		t.Errorf("an ordinary layer: %v, want not found", err)
	}
}

func TestClientInTroubleDoesNotFailAnother(t *testing.T) {
	s := registrytest.New(t, registrytest.Options{Auth: registrytest.Bearer, Accounts: accounts})
	m := sessiontest.NewManager(t, session.ManagerOptions{})
	door := sessiontest.HTTP(t, m)
	start := func(c *registrytest.Client) *session.Group {
		ses := session.New(session.Options{})
		ses.Allow(c)
		return m.Group(sessiontest.Run(t, m, door, ses).ID())
	}
	locked := start(&registrytest.Client{Trouble: errors.New("keychain is locked")})
	ann := start(&registrytest.Client{User: "ann", Password: accounts["ann"], HTTP: s.Client()})
	reg := open(t, nil)
	ref := s.Host + "/private/app:1"
	publish(t, reg.Resolver(as(session.Join(locked, ann))), ref, 4096)
	if _, _, err := reg.Resolver(as(locked)).Resolve(t.Context(), ref); err == nil || !strings.Contains(err.Error(), "keychain is locked") {
		t.Errorf("got %v, want the client's trouble", err)
	}
}
