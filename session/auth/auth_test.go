package auth_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/types"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/auth"
	"github.com/slipwaybuild/slipway/session/sessiontest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http/httptest.(*Server).goServe.func1"))
}

// withAccounts returns options of a client with these accounts by host, and nothing of the machine's.
func withAccounts(t testing.TB, accounts map[string]types.AuthConfig) auth.Options {
	cf := configfile.New("")
	cf.AuthConfigs = accounts
	return withConfig(t, cf)
}

func withConfig(t testing.TB, cf *configfile.ConfigFile) auth.Options {
	return auth.Options{ConfigFile: func() (*configfile.ConfigFile, error) { return cf, nil }, SeedDir: t.TempDir(), ScopedDir: t.TempDir()}
}

// tokenServer is a registry and its token server on one address.
type tokenServer struct {
	*httptest.Server
	host    string
	scheme  string // of its challenge: "Bearer", "Basic", or "" for an open registry
	realm   string // of its challenge, if not its own
	handle  http.HandlerFunc
	pings   atomic.Int32
	tokens  atomic.Int32
	baseURL string
}

// newTokenServer answers token requests with handle.
func newTokenServer(t *testing.T, scheme string, handle http.HandlerFunc) *tokenServer {
	t.Helper()
	s := &tokenServer{scheme: scheme, handle: handle}
	mux := http.NewServeMux()
	mux.HandleFunc("/v2/", func(w http.ResponseWriter, _ *http.Request) {
		s.pings.Add(1)
		if s.scheme == "" {
			return
		}
		realm := s.realm
		if realm == "" {
			realm = s.baseURL + "/token"
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`%s realm="%s",service="svc, with comma"`, s.scheme, realm))
		w.WriteHeader(http.StatusUnauthorized)
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		s.tokens.Add(1)
		s.handle(w, r)
	})
	s.Server = httptest.NewServer(mux)
	s.baseURL = s.URL
	s.host = strings.TrimPrefix(s.URL, "http://")
	t.Cleanup(s.Close)
	return s
}

func (s *tokenServer) request(scopes ...string) auth.TokenRequest {
	return auth.TokenRequest{Host: s.host, Realm: s.URL + "/token", Service: "svc", Scopes: scopes}
}

func reply(w http.ResponseWriter, body string) { _, _ = io.WriteString(w, body) }

func TestFetchToken(t *testing.T) {
	t.Parallel()
	password := types.AuthConfig{Username: "alice", Password: "s3cret"}
	onlyGet := func(refusal int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			user, pass, _ := r.BasicAuth()
			switch {
			case r.Method != http.MethodGet:
				w.WriteHeader(refusal)
			case user != "alice" || pass != "s3cret" || fmt.Sprint(r.URL.Query()["scope"]) != "[a b]" || r.URL.Query().Get("service") != "svc":
				w.WriteHeader(http.StatusForbidden)
			default:
				reply(w, `{"token":"got"}`)
			}
		}
	}
	for name, tc := range map[string]struct {
		account types.AuthConfig
		handle  http.HandlerFunc
		want    string
		expires time.Duration
	}{
		"password by POST": {password, func(w http.ResponseWriter, r *http.Request) {
			want := "client_id=slipway&grant_type=password&password=s3cret&scope=a+b&service=svc&username=alice"
			if err := r.ParseForm(); err != nil || r.Method != http.MethodPost || r.PostForm.Encode() != want {
				t.Errorf("%s %s", r.Method, r.PostForm.Encode())
			}
			reply(w, `{"access_token":"posted","expires_in":300,"issued_at":"2026-01-02T03:04:05Z"}`)
		}, "posted", 5 * time.Minute},
		"identity token": {types.AuthConfig{IdentityToken: "ident"}, func(w http.ResponseWriter, r *http.Request) {
			want := "client_id=slipway&grant_type=refresh_token&refresh_token=ident&scope=a+b&service=svc"
			if err := r.ParseForm(); err != nil || r.PostForm.Encode() != want {
				t.Errorf("%s %s", r.Method, r.PostForm.Encode())
			}
			reply(w, `{"access_token":"refreshed","refresh_token":"next"}`)
		}, "refreshed", time.Minute},
		"GET after 404": {password, onlyGet(http.StatusNotFound), "got", time.Minute},
		"GET after 405": {password, onlyGet(http.StatusMethodNotAllowed), "got", time.Minute},
		"GET after 401": {password, onlyGet(http.StatusUnauthorized), "got", time.Minute},
		"anonymous": {types.AuthConfig{}, func(w http.ResponseWriter, r *http.Request) {
			if _, _, ok := r.BasicAuth(); ok || r.Method != http.MethodGet {
				t.Errorf("anonymous request by %s, with account: %v", r.Method, ok)
			}
			reply(w, `{"token":"anybody","access_token":"anybody"}`)
		}, "anybody", time.Minute},
		"registry token": {types.AuthConfig{Username: "x", RegistryToken: "ready"}, func(http.ResponseWriter, *http.Request) {
			t.Error("the token server was asked")
		}, "ready", time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := newTokenServer(t, "Bearer", tc.handle)
			g := sessiontest.Pair(t, auth.New(withAccounts(t, map[string]types.AuthConfig{srv.host: tc.account})))
			got, err := auth.FetchToken(t.Context(), g, srv.request("a", "b"))
			if err != nil || got.Value != tc.want || got.ExpiresIn != tc.expires {
				t.Errorf("%+v, %v; want %s for %s", got, err, tc.want, tc.expires)
			}
		})
	}
}

func TestTokenServerThatFails(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		handle http.HandlerFunc
		code   codes.Code
		want   string
		asked  int32 // by POST, and by GET where that follows
	}{
		"denied": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusUnauthorized)
			reply(w, `{"errors":[{"message":"wrong password s3cret"}]}`)
		}, codes.Unauthenticated, "401 Unauthorized: wrong password ***", 2},
		"no token": {func(w http.ResponseWriter, _ *http.Request) { reply(w, `{}`) }, codes.Unknown, "no token", 1},
		"no JSON":  {func(w http.ResponseWriter, _ *http.Request) { reply(w, `<html>`) }, codes.Unknown, "no JSON", 1},
		"elsewhere": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://evil.invalid/")
			w.WriteHeader(307)
		}, codes.Unavailable, "redirected to another server, evil.invalid", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := newTokenServer(t, "Bearer", tc.handle)
			g := sessiontest.Pair(t, auth.New(withAccounts(t, map[string]types.AuthConfig{srv.host: {Username: "alice", Password: "s3cret"}})))
			_, err := auth.FetchToken(t.Context(), g, srv.request("a"))
			if status.Code(err) != tc.code || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%v; want %s and %q", err, tc.code, tc.want)
			}
			if n := srv.tokens.Load(); n != tc.asked {
				t.Errorf("asked %d times, want %d", n, tc.asked)
			}
		})
	}
}

func TestFaultOfTheTokenServerPasses(t *testing.T) {
	t.Parallel()
	var n atomic.Int32
	srv := newTokenServer(t, "Bearer", func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1) < 3 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		reply(w, `{"token":"third time"}`)
	})
	g := sessiontest.Pair(t, auth.New(withAccounts(t, nil)))
	if got, err := auth.FetchToken(t.Context(), g, srv.request("a")); got.Value != "third time" || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestPasswordGoesOnlyWhereTheRegistrySays: a daemon cannot have the password sent to a server of its own.
func TestPasswordGoesOnlyWhereTheRegistrySays(t *testing.T) {
	t.Parallel()
	evil := newTokenServer(t, "Bearer", func(http.ResponseWriter, *http.Request) { t.Error("the password was sent") })
	for scheme, code := range map[string]codes.Code{"Bearer": codes.PermissionDenied, "Basic": codes.PermissionDenied} {
		registry := newTokenServer(t, scheme, nil)
		g := sessiontest.Pair(t, auth.New(withAccounts(t, map[string]types.AuthConfig{registry.host: {Username: "alice", Password: "s3cret"}})))
		req := registry.request("a")
		req.Realm = evil.URL + "/token"
		if _, err := auth.FetchToken(t.Context(), g, req); status.Code(err) != code {
			t.Errorf("%s: %v", scheme, err)
		}
	}
	g := sessiontest.Pair(t, auth.New(withAccounts(t, nil)))
	for _, realm := range []string{"", "ftp://x/token", "file:///etc/passwd", "http://u:p@x/", "://", "/token"} {
		if _, err := auth.FetchToken(t.Context(), g, auth.TokenRequest{Host: "x.invalid", Realm: realm}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("realm %q: %v", realm, err)
		}
	}
}

func TestWhenThePasswordIsSent(t *testing.T) {
	t.Parallel()
	token := func(w http.ResponseWriter, _ *http.Request) { reply(w, `{"token":"t"}`) }
	account := types.AuthConfig{Username: "alice", Password: "s3cret"}
	for name, tc := range map[string]struct {
		scheme string
		fetch  bool // whether a token was fetched before
		sent   bool
	}{
		"registry with tokens":              {"Bearer", false, false},
		"registry with basic auth":          {"Basic", false, true},
		"registry that does not say":        {"", false, true},
		"one that does not say, with token": {"", true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := newTokenServer(t, tc.scheme, token)
			var out bytes.Buffer
			o := withAccounts(t, map[string]types.AuthConfig{srv.host: account})
			o.Logger = slog.New(slog.NewTextHandler(&out, nil))
			g := sessiontest.Pair(t, auth.New(o))
			if tc.fetch {
				if _, err := auth.FetchToken(t.Context(), g, srv.request("a")); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				user, secret, err := auth.Credentials(t.Context(), g, srv.host)
				if sent := user == "alice" && secret == "s3cret"; sent != tc.sent || !sent && user+secret != "" || err != nil {
					t.Errorf("%q, secret of %d bytes, %v; want it sent: %v", user, len(secret), err, tc.sent)
				}
			}
			if n := srv.pings.Load(); n != 1 {
				t.Errorf("the registry was asked %d times how it authenticates", n)
			}
			if !strings.Contains(out.String(), srv.host) || strings.Contains(out.String(), "s3cret") {
				t.Errorf("log: %s", out.String())
			}
		})
	}
	t.Run("Docker Hub", func(t *testing.T) {
		t.Parallel()
		g := sessiontest.Pair(t, auth.New(withAccounts(t, map[string]types.AuthConfig{"https://index.docker.io/v1/": account})))
		for _, host := range []string{"registry-1.docker.io", "docker.io", "index.docker.io"} {
			if user, secret, err := auth.Credentials(t.Context(), g, host); user+secret != "" || err != nil {
				t.Errorf("%s: %q, %v", host, user, err)
			}
		}
	})
	t.Run("unreachable", func(t *testing.T) {
		t.Parallel()
		g := sessiontest.Pair(t, auth.New(withAccounts(t, map[string]types.AuthConfig{"127.0.0.1:1": account})))
		if user, _, err := auth.Credentials(t.Context(), g, "127.0.0.1:1"); user != "alice" || err != nil {
			t.Errorf("%q, %v", user, err)
		}
	})
	t.Run("no account", func(t *testing.T) {
		t.Parallel()
		g := sessiontest.Pair(t, auth.New(withAccounts(t, nil)))
		if user, secret, err := auth.Credentials(t.Context(), g, "x.invalid"); user+secret != "" || err != nil {
			t.Errorf("%q, %v", user, err)
		}
	})
}

func TestAuthority(t *testing.T) {
	t.Parallel()
	const host = "registry.invalid"
	account := map[string]types.AuthConfig{host: {Username: "alice", Password: "s3cret"}}
	salt := []byte("0123456789abcdef")
	alice := withAccounts(t, account)
	key := func(o auth.Options, salt []byte) (*session.Group, string) {
		g := sessiontest.Pair(t, auth.New(o))
		k, err := auth.TokenAuthority(t.Context(), g, host, salt)
		if err != nil {
			t.Fatal(err)
		}
		return g, string(k)
	}
	g1, k1 := key(alice, salt)
	g2, k2 := key(alice, salt) // another session of the same user, with the same seeds
	gBob, kBob := key(withAccounts(t, account), salt)
	_, kSalt := key(alice, []byte("another salt 123"))
	gNone, kNone := key(withAccounts(t, nil), salt)
	_, kNone2 := key(withAccounts(t, nil), salt)
	if k1 != k2 || kNone != kNone2 {
		t.Error("equals have different keys")
	}
	if k1 == kBob || k1 == kSalt || k1 == kNone {
		t.Error("different users, or salts, have one key")
	}
	for name, tc := range map[string]struct {
		g    *session.Group
		want bool
	}{"same": {g1, true}, "same user": {g2, true}, "other user": {gBob, false}, "anonymous": {gNone, false}} {
		if ok, err := auth.VerifyAuthority(t.Context(), tc.g, host, salt, []byte(k1)); ok != tc.want || err != nil {
			t.Errorf("%s: %v, %v", name, ok, err)
		}
	}
	if fi, err := os.Stat(filepath.Join(alice.SeedDir, ".token_seed")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("seed file: %v, %v", fi, err)
	}
}

// TestNobodyAnswers: without the service, and without a session, the error says so and the caller may go on anonymously.
func TestNobodyAnswers(t *testing.T) {
	t.Parallel()
	m := sessiontest.NewManager(t, session.ManagerOptions{})
	for name, g := range map[string]*session.Group{"no session": m.Group(), "no service": sessiontest.Pair(t)} {
		_, _, err := auth.Credentials(t.Context(), g, "x")
		if status.Code(err) == codes.OK || !strings.Contains(err.Error(), "no active session") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// helper puts a credential helper that is a shell script into PATH.
func helper(t *testing.T, name, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-"+name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
}

func TestHelpers(t *testing.T) {
	helper(t, "works", `read host; [ "$1" = get ] && echo "{\"ServerURL\":\"$host\",\"Username\":\"user of $host\",\"Secret\":\"pw\"}"`)
	helper(t, "token", `echo '{"Username":"<token>","Secret":"ident"}'`)
	helper(t, "empty", `echo "credentials not found in native keychain"; exit 1`)
	helper(t, "fails", `echo "vault is sealed"; exit 3`)
	helper(t, "garbage", `echo "pw in the clear"`)
	cf := configfile.New("")
	cf.CredentialsStore = "works"
	cf.CredentialHelpers = map[string]string{"127.0.0.1:1": "token", "127.0.0.1:2": "empty", "127.0.0.1:3": "fails", "127.0.0.1:4": "garbage", "127.0.0.1:6": "nosuchhelper"}
	g := sessiontest.Pair(t, auth.New(withConfig(t, cf)))
	for host, want := range map[string][2]string{
		"127.0.0.1:9": {"user of 127.0.0.1:9", "pw"}, "127.0.0.1:1": {"", "ident"}, "127.0.0.1:2": {"", ""},
	} {
		if user, secret, err := auth.Credentials(t.Context(), g, host); user != want[0] || secret != want[1] || err != nil {
			t.Errorf("%s: %q, %q, %v; want %q", host, user, secret, err, want)
		}
	}
	for host, want := range map[string]string{
		"127.0.0.1:3": "docker-credential-fails: exit status 3: vault is sealed",
		"127.0.0.1:4": "docker-credential-garbage: its answer is not what a helper answers",
		"127.0.0.1:6": "docker-credential-nosuchhelper",
	} {
		_, _, err := auth.Credentials(t.Context(), g, host)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "clear") {
			t.Errorf("%s: %v; want %s", host, err, want)
		}
	}
}

func TestHelperThatHangs(t *testing.T) {
	helper(t, "hangs", `exec sleep 600`)
	cf := configfile.New("")
	cf.CredentialsStore = "hangs"
	o := withConfig(t, cf)
	o.HelperTimeout = 50 * time.Millisecond
	_, _, err := auth.Credentials(t.Context(), sessiontest.Pair(t, auth.New(o)), "127.0.0.1:5")
	if want := "credentials for 127.0.0.1:5: credential helper docker-credential-hangs: no answer within 50ms"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v; want %s", err, want)
	}
}

// A helper that hangs holds up nobody who does not need it, and one who does only once.
func TestHelperThatHangsHangsAlone(t *testing.T) {
	helper(t, "hangs", `echo x >> "$RUNS"; exec sleep 600`)
	helper(t, "works", `echo '{"Username":"u","Secret":"pw"}'`)
	runs := filepath.Join(t.TempDir(), "runs")
	t.Setenv("RUNS", runs)
	cf := configfile.New("")
	cf.CredentialHelpers = map[string]string{"127.0.0.1:1": "hangs", "127.0.0.1:2": "hangs", "127.0.0.1:3": "works"}
	cf.AuthConfigs = map[string]types.AuthConfig{"127.0.0.1:4": {Username: "v", Password: "pw"}}
	o := withConfig(t, cf)
	o.HelperTimeout = 2 * time.Second
	g := sessiontest.Pair(t, auth.New(o))
	hung := make(chan error, 1)
	go func() {
		_, _, err := auth.Credentials(t.Context(), g, "127.0.0.1:1")
		hung <- err
	}()
	for {
		if _, err := os.Stat(runs); err == nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	for host, want := range map[string]string{"127.0.0.1:3": "u", "127.0.0.1:4": "v"} {
		if user, _, err := auth.Credentials(t.Context(), g, host); user != want || err != nil {
			t.Errorf("%s: %q, %v", host, user, err)
		}
	}
	if len(hung) > 0 {
		t.Error("others had to wait for the helper that hangs")
	}
	if err := <-hung; err == nil || !strings.Contains(err.Error(), "docker-credential-hangs: no answer within 2s") {
		t.Error(err)
	}
	if _, _, err := auth.Credentials(t.Context(), g, "127.0.0.1:2"); err == nil || !strings.Contains(err.Error(), "credentials for 127.0.0.1:2: credential helper docker-credential-hangs") {
		t.Error(err)
	}
	if b, err := os.ReadFile(runs); err != nil || strings.Count(string(b), "x") != 1 {
		t.Errorf("the helper ran: %q, %v", b, err)
	}
}

func TestAccountFromTheEnvironment(t *testing.T) {
	t.Setenv("DOCKER_AUTH_CONFIG", `{"auths":{"127.0.0.1:1":{"auth":"ZW52OnB3"}}}`)
	cf := configfile.New("")
	cf.CredentialsStore = "nosuchhelper"
	g := sessiontest.Pair(t, auth.New(withConfig(t, cf)))
	if user, secret, err := auth.Credentials(t.Context(), g, "127.0.0.1:1"); user != "env" || secret != "pw" || err != nil {
		t.Errorf("%q, %q, %v", user, secret, err)
	}
}

// TestConfigFileIsReadLate: a client that needs no account never looks.
func TestConfigFileIsReadLate(t *testing.T) {
	t.Parallel()
	var loads atomic.Int32
	o := auth.Options{SeedDir: t.TempDir(), ConfigFile: func() (*configfile.ConfigFile, error) {
		loads.Add(1)
		return nil, fmt.Errorf("config.json: line 1: not JSON")
	}}
	g := sessiontest.Pair(t, auth.New(o))
	if n := loads.Load(); n != 0 {
		t.Errorf("loaded %d times before it was needed", n)
	}
	for range 2 {
		if _, _, err := auth.Credentials(t.Context(), g, "x"); err == nil || !strings.Contains(err.Error(), "config.json: line 1") {
			t.Errorf("credentials: %v", err)
		}
	}
	if n := loads.Load(); n != 1 {
		t.Errorf("loaded %d times", n)
	}
}

func TestCallerMayGiveUp(t *testing.T) {
	helper(t, "hangs", `exec sleep 600`)
	cf := configfile.New("")
	cf.CredentialsStore = "hangs"
	g := sessiontest.Pair(t, auth.New(withConfig(t, cf)))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := auth.Credentials(ctx, g, "x"); err == nil {
		t.Error("a hanging helper answered")
	}
}
