package interop

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/types"
	controlapi "github.com/moby/buildkit/api/services/control"
	bksession "github.com/moby/buildkit/session"
	bkauth "github.com/moby/buildkit/session/auth"
	"github.com/moby/buildkit/session/auth/authprovider"
	"github.com/moby/buildkit/session/grpchijack"
	bksecrets "github.com/moby/buildkit/session/secrets"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/session/sshforward"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
	bkupload "github.com/moby/buildkit/session/upload"
	"github.com/moby/buildkit/session/upload/uploadprovider"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/auth"
	"github.com/slipwaybuild/slipway/session/dial"
	"github.com/slipwaybuild/slipway/session/secrets"
	"github.com/slipwaybuild/slipway/session/sessiontest"
	sshsession "github.com/slipwaybuild/slipway/session/ssh"
	"github.com/slipwaybuild/slipway/session/upload"
)

// fixture is what a client has.
type fixture struct {
	keyFile  string
	realm    string // a token server that gives "token for alice" to alice
	registry string // a host that nobody can reach, with an account
	config   *configfile.ConfigFile
	big      []byte
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "test")
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{keyFile: filepath.Join(t.TempDir(), "key"), registry: "registry.invalid", big: bytes.Repeat([]byte("context "), 1<<19)}
	if err := os.WriteFile(f.keyFile, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.PostFormValue("password") != "s3cret" || r.PostFormValue("scope") != "repository:a:pull repository:b:push" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = io.WriteString(w, `{"access_token":"token for `+r.PostFormValue("username")+`","expires_in":300}`)
	}))
	t.Cleanup(srv.Close)
	f.realm = srv.URL
	f.config = configfile.New("")
	f.config.AuthConfigs = map[string]types.AuthConfig{f.registry: {Username: "alice", Password: "s3cret"}}
	return f
}

func (f *fixture) tokenRequest() auth.TokenRequest {
	return auth.TokenRequest{Host: f.registry, Realm: f.realm, Service: "svc", Scopes: []string{"repository:a:pull", "repository:b:push"}}
}

// TestBuildKitClient: BuildKit's client reaches our daemon by both doors, with its own dialer where it has one.
func TestBuildKitClient(t *testing.T) {
	doors := map[string]func(*testing.T, *session.Manager) bksession.Dialer{
		"http": func(t *testing.T, m *session.Manager) bksession.Dialer {
			return bksession.Dialer(sessiontest.HTTP(t, m))
		},
		"control": func(t *testing.T, m *session.Manager) bksession.Dialer {
			return grpchijack.Dialer(sessiontest.ControlClient(t, m))
		},
	}
	for name, door := range doors {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			t.Setenv("DOCKER_CONFIG", t.TempDir())
			s, err := bksession.NewSession(t.Context(), "shared")
			if err != nil {
				t.Fatal(err)
			}
			s.Allow(authprovider.NewDockerAuthProvider(authprovider.DockerAuthProviderConfig{AuthConfigProvider: authprovider.LoadAuthConfig(f.config)}))
			s.Allow(secretsprovider.FromMap(map[string][]byte{"db": []byte("pa55")}))
			forward, err := sshprovider.NewSSHAgentProvider([]sshprovider.AgentConfig{{ID: "deploy", Paths: []string{f.keyFile}}})
			if err != nil {
				t.Fatal(err)
			}
			s.Allow(forward)
			up := uploadprovider.New()
			where, err := url.Parse(up.Add(io.NopCloser(bytes.NewReader(f.big))))
			if err != nil {
				t.Fatal(err)
			}
			s.Allow(up)

			// Health checks as fast as can be: an unpleasant daemon, which the client must survive.
			m := sessiontest.NewManager(t, session.ManagerOptions{Wait: 200 * time.Millisecond, Health: session.Health{Interval: time.Millisecond}})
			dialer := door(t, m)
			ran := make(chan error, 1)
			go func() { ran <- s.Run(context.WithoutCancel(t.Context()), dialer) }()
			c, err := waitFor(t, m, s.ID())
			if err != nil {
				t.Fatal(err)
			}
			if c.SharedKey() != "shared" || !c.Supports(bkauth.Auth_FetchToken_FullMethodName) {
				t.Errorf("shared key %q, or FetchToken is not announced", c.SharedKey())
			}
			useAsDaemon(t, m.Group(s.ID()), f, where)

			if err := s.Close(); err != nil {
				t.Error(err)
			}
			<-c.Done()
			if err := <-ran; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
}

func waitFor(t *testing.T, m *session.Manager, id string) (session.Caller, error) {
	for {
		c, err := m.Get(t.Context(), id)
		if !errors.Is(err, session.ErrNoSession) {
			return c, err
		}
	}
}

// useAsDaemon does what a build does with the services of a client.
func useAsDaemon(t *testing.T, g *session.Group, f *fixture, where *url.URL) {
	t.Helper()
	ctx := t.Context()
	if v, err := secrets.Get(ctx, g, "db"); string(v) != "pa55" || err != nil {
		t.Errorf("secret: %q, %v", v, err)
	}
	if _, err := secrets.Get(ctx, g, "nosuch"); !errors.Is(err, secrets.ErrNotFound) {
		t.Errorf("missing secret: %v", err)
	}

	salt := []byte("0123456789abcdef")
	key, err := auth.TokenAuthority(ctx, g, f.registry, salt)
	if err != nil {
		t.Errorf("authority: %v", err)
	}
	if ok, err := auth.VerifyAuthority(ctx, g, f.registry, salt, key); !ok || err != nil {
		t.Errorf("verify: %v, %v", ok, err)
	}
	if ok, err := auth.VerifyAuthority(ctx, g, f.registry, []byte("another salt 000"), key); ok || err != nil {
		t.Errorf("verify with another salt: %v, %v", ok, err)
	}
	if tok, err := auth.FetchToken(ctx, g, f.tokenRequest()); tok.Value != "token for alice" || tok.ExpiresIn != 5*time.Minute || err != nil {
		t.Errorf("token: %+v, %v", tok, err)
	}
	if user, _, err := auth.Credentials(ctx, g, "other.invalid"); user != "" || err != nil {
		t.Errorf("credentials where there are none: %q, %v", user, err)
	}

	if err := sshsession.Check(ctx, g, "deploy"); err != nil {
		t.Errorf("ssh check: %v", err)
	}
	if err := sshsession.Check(ctx, g, "nosuch"); !errors.Is(err, sshsession.ErrNotForwarded) {
		t.Errorf("ssh check of another id: %v", err)
	}
	conn, err := sshsession.Dial(ctx, g, "deploy")
	if err != nil {
		t.Fatalf("ssh dial: %v", err)
	}
	useAgent(t, conn)

	r, err := upload.Pull(ctx, g, where.Host, where.Path)
	if err != nil {
		t.Fatalf("upload: %v", err)
	}
	if got, err := io.ReadAll(r); !bytes.Equal(got, f.big) || err != nil {
		t.Errorf("upload: %d bytes, %v", len(got), err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := upload.Pull(ctx, g, where.Host, where.Path); !errors.Is(err, upload.ErrNotFound) {
		t.Errorf("second pull: %v", err)
	}
}

func useAgent(t *testing.T, conn net.Conn) {
	t.Helper()
	a := agent.NewClient(conn)
	keys, err := a.List()
	if err != nil || len(keys) != 1 {
		t.Fatalf("keys of the agent: %v, %v", keys, err)
	}
	sig, err := a.Sign(keys[0], []byte("data"))
	if err != nil {
		t.Fatalf("sign: %v", err)
	}
	pub, err := ssh.ParsePublicKey(keys[0].Blob)
	if err != nil {
		t.Fatal(err)
	}
	if err := pub.Verify([]byte("data"), sig); err != nil {
		t.Errorf("signature: %v", err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}

// TestBuildKitDaemon: our client serves BuildKit's daemon by both of its doors, with our dialers.
func TestBuildKitDaemon(t *testing.T) {
	doors := map[string]func(*testing.T, *bksession.Manager) session.Dialer{"http": bkHTTP, "control": bkControl}
	for name, door := range doors {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			m, err := bksession.NewManager()
			if err != nil {
				t.Fatal(err)
			}
			s := session.New(session.Options{SharedKey: "geteilt ü"})
			s.Allow(auth.New(auth.Options{ConfigFile: func() (*configfile.ConfigFile, error) { return f.config, nil }, SeedDir: t.TempDir()}))
			s.Allow(secrets.FromStore(secrets.Map{"db": []byte("pa55")}))
			forward, err := sshsession.New(t.Context(), []sshsession.Config{{ID: "deploy", Paths: []string{f.keyFile}}})
			if err != nil {
				t.Fatal(err)
			}
			s.Allow(forward)
			up := upload.New()
			where, err := url.Parse(up.Add(io.NopCloser(bytes.NewReader(f.big))))
			if err != nil {
				t.Fatal(err)
			}
			s.Allow(up)
			dialer := door(t, m)
			ran := make(chan error, 1)
			go func() { ran <- s.Run(context.WithoutCancel(t.Context()), dialer) }()
			c, err := m.Get(t.Context(), s.ID(), false)
			if err != nil {
				t.Fatal(err)
			}
			if c.SharedKey() != "geteilt ü" {
				t.Errorf("shared key %q", c.SharedKey())
			}
			useAsBuildKit(t, m, c, s.ID(), f, where)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if err := <-ran; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
}

func useAsBuildKit(t *testing.T, m *bksession.Manager, c bksession.Caller, id string, f *fixture, where *url.URL) {
	t.Helper()
	ctx, g := t.Context(), bksession.NewGroup(id)
	if v, err := bksecrets.GetSecret(ctx, c, "db"); string(v) != "pa55" || err != nil {
		t.Errorf("secret: %q, %v", v, err)
	}
	if _, err := bksecrets.GetSecret(ctx, c, "nosuch"); !errors.Is(err, bksecrets.ErrNotFound) {
		t.Errorf("missing secret: %v", err)
	}
	_, key, err := bkauth.GetTokenAuthority(ctx, f.registry, m, g)
	if err != nil || key == nil {
		t.Fatalf("authority: %v, %v", key, err)
	}
	if _, ok, err := bkauth.VerifyTokenAuthority(ctx, f.registry, key, m, g); !ok || err != nil {
		t.Errorf("verify: %v, %v", ok, err)
	}
	want := f.tokenRequest()
	tok, err := bkauth.FetchToken(ctx, &bkauth.FetchTokenRequest{Host: want.Host, Realm: want.Realm, Service: want.Service, Scopes: want.Scopes}, m, g)
	if err != nil || tok.Token != "token for alice" || tok.ExpiresIn != 300 {
		t.Errorf("token: %v, %v", tok, err)
	}
	// The host took a token, so it can do without the password.
	if _, user, secret, err := bkauth.CredentialsFunc(ctx, m, g)(f.registry); user != "" || secret != "" || err != nil {
		t.Errorf("credentials: %q, %v", user, err)
	}
	if err := sshforward.CheckSSHID(ctx, c, "deploy"); err != nil {
		t.Errorf("ssh check: %v", err)
	}
	sock, closeSock, err := sshforward.MountSSHSocket(ctx, c, sshforward.SocketOpt{ID: "deploy", Mode: 0o600, UID: os.Getuid(), GID: os.Getgid()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(closeSock(), os.RemoveAll(filepath.Dir(sock))); err != nil {
			t.Error(err)
		}
	})
	conn, err := net.Dial("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	useAgent(t, conn)
	up, err := bkupload.New(ctx, c, where)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if _, err := up.WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), f.big) {
		t.Errorf("upload: %d bytes, %v", got.Len(), err)
	}
}

func bkHTTP(t *testing.T, m *bksession.Manager) session.Dialer {
	sock := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != "/session" || !slices.Contains(r.Header["Connection"], "Upgrade") {
			t.Errorf("request %s %s, %v", r.Method, r.URL, r.Header)
		}
		if err := m.HandleHTTPRequest(r.Context(), w, r); err != nil {
			t.Errorf("BuildKit: %v", err)
		}
	})}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	return dial.HTTP(sessiontest.DialSocket(sock))
}

type bkServer struct {
	controlapi.UnimplementedControlServer
	m *bksession.Manager
}

func (s *bkServer) Session(stream controlapi.Control_SessionServer) error {
	conn, closed, meta := grpchijack.Hijack(stream)
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	go func() {
		<-closed
		cancel()
	}()
	return s.m.HandleConn(ctx, conn, meta)
}

func bkControl(t *testing.T, m *bksession.Manager) session.Dialer {
	sock := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	controlapi.RegisterControlServer(srv, &bkServer{m: m})
	go func() { _ = srv.Serve(l) }()
	cc, err := grpc.NewClient("unix:"+sock, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cc.Close()
		srv.Stop()
	})
	return dial.Control(controlapi.NewControlClient(cc))
}
