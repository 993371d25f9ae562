// Package registrytest serves registries for tests: in memory, over http or https, with any kind of authorization, and with faults
// on demand. It records what it was asked.
package registrytest

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
)

// Auth is how a registry wants its clients to authorize.
type Auth string

// The kinds of authorization.
const (
	None   Auth = ""
	Basic  Auth = "basic"
	Bearer Auth = "bearer" // tokens from /token of the same server
)

// Options say what kind of registry to serve.
type Options struct {
	TLS  bool
	Auth Auth
	// Accounts are passwords by user.
	Accounts map[string]string
	// AnonymousPull gives tokens for pulling to everybody.
	AnonymousPull bool
	// Referrers makes it keep lists of what refers to manifests.
	Referrers bool
	// IdentityTokens are users by the token that stands for their password.
	IdentityTokens map[string]string
	// May tells what a user ("" is anybody) may do ("pull", "push") in a repository; nil is everything.
	May func(user, repository, action string) bool
	// Lifetime is how long tokens last, in seconds; 0 is not told, and they last forever.
	Lifetime int
}

// grant is what a token is good for.
type grant struct {
	scopes string
	until  time.Time // zero is forever
}

// Request is what was asked.
type Request struct {
	Method, Path, Query, Range, UserAgent, Authorization string
}

// Server is a registry.
type Server struct {
	// Host is "127.0.0.1:port".
	Host string
	// CAFile holds the certificate of a TLS server.
	CAFile string

	o        Options
	srv      *httptest.Server
	registry http.Handler

	mu       sync.Mutex
	requests []Request
	tokens   map[string]grant
	fault    func(http.ResponseWriter, *http.Request) bool
}

// New serves a registry until the test ends.
func New(t testing.TB, o Options) *Server {
	t.Helper()
	s := &Server{o: o, tokens: map[string]grant{}, registry: ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)), ggcr.WithReferrersSupport(o.Referrers))}
	s.srv = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	if o.TLS {
		s.srv.StartTLS()
		s.CAFile = filepath.Join(t.TempDir(), "ca.pem")
		cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.srv.Certificate().Raw})
		if err := os.WriteFile(s.CAFile, cert, 0o600); err != nil {
			t.Fatal(err)
		}
	} else {
		s.srv.Start()
	}
	s.Host = s.srv.Listener.Addr().String()
	t.Cleanup(s.Close)
	return s
}

// Close ends the server; what is connected is cut off.
func (s *Server) Close() {
	s.srv.CloseClientConnections()
	s.srv.Close()
}

// Client talks to the server and trusts its certificate.
func (s *Server) Client() *http.Client { return s.srv.Client() }

// Requests returns what was asked so far.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Count counts the requests by method ("" is any) whose path contains a part.
func (s *Server) Count(method, part string) int {
	n := 0
	for _, r := range s.Requests() {
		if (method == "" || r.Method == method) && strings.Contains(r.Path, part) {
			n++
		}
	}
	return n
}

// Forget empties the record of requests.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = nil
}

// Revoke makes all tokens invalid.
func (s *Server) Revoke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
}

// Fault calls f for every request before anything else; if it returns true it has answered. nil ends faults.
func (s *Server) Fault(f func(http.ResponseWriter, *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, Request{
		Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery, Range: r.Header.Get("Range"),
		UserAgent: r.UserAgent(), Authorization: r.Header.Get("Authorization"),
	})
	fault := s.fault
	s.mu.Unlock()
	if fault != nil && fault(w, r) {
		return
	}
	if r.URL.Path == "/token" {
		s.token(w, r)
		return
	}
	if s.authorized(r) {
		s.closeRange(r)
		s.registry.ServeHTTP(w, r)
		return
	}
	w.Header().Set("WWW-Authenticate", s.challenge(r))
	http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
}

// closeRange gives an open range its end, which the registry underneath insists on.
func (s *Server) closeRange(r *http.Request) {
	start, ok := strings.CutSuffix(r.Header.Get("Range"), "-")
	if !ok {
		return
	}
	head, size := r.Clone(r.Context()), httptest.NewRecorder()
	head.Method = http.MethodHead
	head.Header.Del("Range")
	s.registry.ServeHTTP(size, head)
	if n, err := strconv.Atoi(size.Header().Get("Content-Length")); err == nil {
		r.Header.Set("Range", fmt.Sprintf("%s-%d", start, n-1))
	}
}

func (s *Server) scheme() string {
	if s.o.TLS {
		return "https"
	}
	return "http"
}

func (s *Server) challenge(r *http.Request) string {
	if s.o.Auth == Basic {
		return `Basic realm="test"`
	}
	return fmt.Sprintf(`Bearer realm="%s://%s/token",service="test",scope="%s"`, s.scheme(), s.Host, scope(r))
}

// scope is what a request needs.
func scope(r *http.Request) string {
	repo := strings.TrimPrefix(r.URL.Path, "/v2/")
	for _, end := range []string{"/manifests/", "/blobs/"} {
		if i := strings.Index(repo, end); i >= 0 {
			repo = repo[:i]
		}
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return "repository:" + repo + ":pull"
	}
	return "repository:" + repo + ":pull,push"
}

func (s *Server) authorized(r *http.Request) bool {
	switch s.o.Auth {
	case Basic:
		user, password, ok := r.BasicAuth()
		return ok && s.o.Accounts[user] != "" && s.o.Accounts[user] == password && s.allowed(user, scope(r)) == scope(r)
	case Bearer:
		t, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		s.mu.Lock()
		defer s.mu.Unlock()
		granted, known := s.tokens[t]
		if !granted.until.IsZero() && time.Now().After(granted.until) {
			return false
		}
		return ok && known && covers(granted.scopes, scope(r))
	}
	return true
}

// allowed is the part of the scopes that a user has.
func (s *Server) allowed(user, scopes string) string {
	if s.o.May == nil {
		return scopes
	}
	var out []string
	for _, sc := range strings.Fields(scopes) {
		i := strings.LastIndexByte(sc, ':')
		if i < 0 {
			continue
		}
		repo := strings.TrimPrefix(sc[:i], "repository:")
		actions := slices.DeleteFunc(strings.Split(sc[i+1:], ","), func(action string) bool { return !s.o.May(user, repo, action) })
		if len(actions) > 0 {
			out = append(out, sc[:i+1]+strings.Join(actions, ","))
		}
	}
	return strings.Join(out, " ")
}

func covers(granted, want string) bool {
	i := strings.LastIndexByte(want, ':')
	for _, g := range strings.Fields(granted) {
		if !strings.HasPrefix(g, want[:i+1]) {
			continue
		}
		have := strings.Split(g[i+1:], ",")
		all := true
		for _, action := range strings.Split(want[i+1:], ",") {
			all = all && slices.Contains(have, action)
		}
		if all {
			return true
		}
	}
	return false
}

func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	user, password, _ := r.BasicAuth()
	if err := r.ParseForm(); err == nil && r.Method == http.MethodPost {
		user, password = r.PostForm.Get("username"), r.PostForm.Get("password")
	}
	scopes := strings.Join(r.Form["scope"], " ")
	if r.PostForm.Get("grant_type") == "refresh_token" {
		user = s.o.IdentityTokens[r.PostForm.Get("refresh_token")]
		password = s.o.Accounts[user]
	}
	known := s.o.Accounts[user] != "" && s.o.Accounts[user] == password
	if !known && (user != "" || !s.o.AnonymousPull || strings.Contains(scopes, "push")) {
		http.Error(w, `{"errors":[{"code":"DENIED","message":"wrong password"}]}`, http.StatusUnauthorized)
		return
	}
	s.mu.Lock()
	value := fmt.Sprintf("token-%d-%s", len(s.requests), user)
	given := grant{scopes: s.allowed(user, scopes)}
	if s.o.Lifetime > 0 {
		given.until = time.Now().Add(time.Duration(s.o.Lifetime) * time.Second)
	}
	s.tokens[value] = given
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"token": value, "access_token": value, "expires_in": s.o.Lifetime}) // the client left
}
