package git

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/sessiontest"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"github.com/slipwaybuild/slipway/solver/source"
)

type fixture struct {
	t      *testing.T
	store  *layers.Store
	source *Source
	root   string
	m      *session.Manager
	dial   session.Dialer
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git here: ", err)
	}
	f := &fixture{t: t, root: t.TempDir()}
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
	if f.source, err = New(Options{Store: f.store, Sessions: f.m, Root: f.root}); err != nil {
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

// get pins and fetches; files holds contents, "-> target" for symlinks, with "*" after the names of executables.
func (f *fixture) get(env source.Env, url string, attrs map[string]string) (files map[string]string, key solver.Parts, err error) {
	f.t.Helper()
	ctx := f.t.Context()
	p, err := f.source.Pin(ctx, env, request(url, attrs))
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	ref, err := p.Fetch(ctx, env)
	if err != nil {
		return nil, p.Key(), err
	}
	defer func() { err = errors.Join(err, ref.Release()) }()
	t, err := f.store.Tree(ctx, ref)
	if err != nil {
		return nil, nil, err
	}
	files = map[string]string{}
	return files, p.Key(), fstree.Walk(ctx, t, "", func(e fstree.Entry) error {
		name := e.Path
		if strings.HasPrefix(name, ".git/") || name == "" || e.IsDir() {
			return nil
		}
		if e.IsSymlink() {
			files[name] = "-> " + e.Linkname
			return nil
		}
		switch e.Mode & 0o7777 {
		case 0o755:
			name += "*"
		case 0o644:
		default:
			return fmt.Errorf("%s has mode %o", name, e.Mode)
		}
		b, err := fstree.ReadFile(ctx, t, e.Path, 1<<20)
		files[name] = string(b)
		return err
	})
}

// request is what a client sends for http://host/repo#ref:subdir: the identifier has no scheme.
func request(url string, attrs map[string]string) source.Request {
	all := map[string]string{}
	bare, _, _ := strings.Cut(url, "#")
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok {
		scheme, rest = "", url
	}
	if i := strings.LastIndex(rest, "@"); i >= 0 && scheme != "" {
		rest = rest[i+1:]
	}
	all["git.fullurl"] = bare
	for k, v := range attrs {
		all[k] = v
	}
	return source.Request{Identifier: "git://" + rest, Attrs: all}
}

// repo is a repository that tests commit to.
type repo struct {
	t   *testing.T
	dir string
}

func newRepo(t *testing.T, dir string) *repo {
	t.Helper()
	r := &repo{t, dir}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r.git("init", "--quiet", "--initial-branch=main")
	return r
}

func (r *repo) git(args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_ALLOW_PROTOCOL=file:http",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b",
		"GIT_AUTHOR_DATE=1600000000 +0000", "GIT_COMMITTER_DATE=1600000000 +0000")
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// commit writes files and returns the commit.
func (r *repo) commit(files map[string]string) string {
	r.t.Helper()
	for name, content := range files {
		p := filepath.Join(r.dir, strings.TrimSuffix(name, "*"))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			r.t.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if strings.HasSuffix(name, "*") {
			mode = 0o755
		}
		var err error
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			err = os.Symlink(target, p)
		} else {
			err = os.WriteFile(p, []byte(content), mode)
		}
		if err != nil {
			r.t.Fatal(err)
		}
	}
	r.git("add", "-A")
	r.git("commit", "--quiet", "--allow-empty", "-m", "commit")
	return r.git("rev-parse", "HEAD")
}

// serve serves the repositories below dir over git's smart http protocol; with a user, only to "user:pass".
func serve(t *testing.T, dir, credentials string) *httptest.Server {
	t.Helper()
	path, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Skip("no git here: ", err)
	}
	backend := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(path)), "git-http-backend"),
		Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1",
			"GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
		InheritEnv: []string{"PATH"},
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, pass, _ := r.BasicAuth()
		if credentials != "" && user+":"+pass != credentials {
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		r.Header.Del("Authorization")
		// git-http-backend speaks protocol v2 when told by this variable, which cgi does not know.
		h := *backend
		h.Env = append(h.Env, "GIT_PROTOCOL="+r.Header.Get("Git-Protocol"))
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// unpack writes a layer's files to dir.
func unpack(t *testing.T, store *layers.Store, ref *layers.Ref, dir string) {
	t.Helper()
	ctx := t.Context()
	tree, err := store.Tree(ctx, ref)
	if err != nil {
		t.Fatal(err)
	}
	var dirs []fstree.Entry
	err = fstree.Walk(ctx, tree, "", func(e fstree.Entry) error {
		p := filepath.Join(dir, e.Path)
		switch {
		case e.Path == "":
			return nil
		case e.IsDir():
			dirs = append(dirs, e)
			return os.Mkdir(p, 0o755)
		case e.IsSymlink():
			return os.Symlink(e.Linkname, p)
		}
		b, err := fstree.ReadFile(ctx, tree, e.Path, 1<<20)
		if err != nil {
			return err
		}
		if err := os.WriteFile(p, b, os.FileMode(e.Mode&0o777)); err != nil {
			return err
		}
		return os.Chtimes(p, e.ModTime, e.ModTime)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range dirs {
		if err := os.Chtimes(filepath.Join(dir, e.Path), e.ModTime, e.ModTime); err != nil {
			t.Fatal(err)
		}
	}
}
