package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	buildkitsession "github.com/moby/buildkit/session"

	"github.com/slipwaybuild/slipway/solver/source/registry/registrytest"
)

// asUser writes a docker configuration with accounts ("user:password" by host), to be used by what follows.
func asUser(t *testing.T, accounts map[string]string) {
	t.Helper()
	auths := map[string]any{}
	for host, account := range accounts {
		auths[host] = map[string]any{"auth": []byte(account)}
	}
	dockerConfig(t, map[string]any{"auths": auths})
}

// dockerConfig writes a docker configuration, to be used by what follows, and returns its directory.
func dockerConfig(t *testing.T, content map[string]any) string {
	t.Helper()
	b, err := json.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_CONFIG", dir)
	return dir
}

// What one user pulled is here: its documents, its layers, and the steps on top. None of it is for one who may not pull it.
func TestPrivateImagesAreForThoseWhoMayPullThem(t *testing.T) {
	for _, kind := range []registrytest.Auth{registrytest.Basic, registrytest.Bearer} {
		t.Run(string(kind), func(t *testing.T) {
			d := startDaemon(t)
			r := registrytest.New(t, registrytest.Options{
				Auth: kind, Accounts: map[string]string{"alice": "alice-s3cret", "bob": "bob-s3cret"}, AnonymousPull: true,
				May: func(user, repo, _ string) bool { return user == "alice" || user == "bob" && repo == "team/open" },
			})
			alice := &authn.Basic{Username: "alice", Password: "alice-s3cret"}
			layer := layerOf(t, tarOf(t, tarReg("f", "private")))
			img := imageOf(t, layer)
			digest := pushImage(t, r.Host+"/team/private:1", img, alice)
			blob := digestOf(t, layer)
			repository := r.Host + "/team/private"
			dockerfiles := map[string]string{
				"tag":       "FROM " + repository + ":1\nCOPY Dockerfile /\n",
				"digest":    "FROM " + repository + "@" + digest + "\nCOPY Dockerfile /\n",
				"both":      "FROM " + repository + ":1@" + digest + "\nCOPY Dockerfile /\n",
				"copy":      "FROM scratch\nCOPY --from=" + repository + "@" + digest + " /f /\n",
				"no layers": "FROM " + repository + "@" + digest + "\nLABEL a=b\n",
				// Its digest alone, under a name of which he may pull.
				"elsewhere": "FROM " + r.Host + "/team/open@" + digest + "\n",
			}
			dirs := map[string]string{}
			for name, text := range dockerfiles {
				dirs[name] = write(t, map[string]string{"Dockerfile": text})
			}
			accounts := map[string]string{"alice": "alice:alice-s3cret", "bob": "bob:bob-s3cret", "nobody": ""}
			become := func(user string) {
				if accounts[user] == "" {
					asUser(t, nil)
				} else {
					asUser(t, map[string]string{r.Host: accounts[user]})
				}
			}
			imageBlob := func(user string) error {
				account, password, _ := strings.Cut(accounts[user], ":")
				att := &registrytest.Client{User: account, Password: password, HTTP: http.DefaultClient}
				_, err := trySolve(t, d.client(t), llb.ImageBlob(repository+"@"+blob), client.SolveOpt{Session: []buildkitsession.Attachable{att}})
				return err
			}
			become("alice")
			for name, dir := range dirs {
				if name == "elsewhere" {
					continue
				}
				out := t.TempDir()
				d.build("-o", out, dir)
				if name != "no layers" && read(t, out, "f") != "private" {
					t.Errorf("alice, %s: not what she pulled", name)
				}
			}
			if err := imageBlob("alice"); err != nil {
				t.Error(err)
			}
			refused := func(who, how, said string) {
				t.Helper()
				if !strings.Contains(said, r.Host) || !strings.Contains(said, "denies access") && !strings.Contains(said, "not found") {
					t.Errorf("%s, %s: nothing says that the registry refuses:\n%s", who, how, said)
				}
				if strings.Contains(said, "-s3cret") {
					t.Errorf("%s, %s: a password was printed:\n%s", who, how, said)
				}
			}
			for _, user := range []string{"bob", "nobody"} {
				for name, dir := range dirs {
					become(user)
					out := t.TempDir()
					res := d.run("build", "-o", out, dir)
					if res.code != 1 || len(list(t, out)) != 0 {
						t.Errorf("%s, %s: exit %d, got %q\n%s", user, name, res.code, list(t, out), res.all())
					}
					refused(user, name, res.errOut)

					header := http.Header{}
					if account, password, ok := strings.Cut(accounts[user], ":"); ok {
						c := fmt.Sprintf(`{%q:{"username":%q,"password":%q,"serveraddress":%[1]q}}`, r.Host, account, password)
						header.Set("X-Registry-Config", base64.URLEncoding.EncodeToString([]byte(c)))
					}
					for _, version := range []string{"1", "2"} {
						_, id, failure := d.rawBuild(url.Values{"version": {version}}, tarball(t, regular("Dockerfile", dockerfiles[name])), header)
						if id != "" {
							t.Errorf("%s, %s, POST /build version %s: got %s", user, name, version, id)
						}
						refused(user, name+" by POST /build", failure)
					}
				}
				if err := imageBlob(user); err == nil {
					t.Errorf("%s got a blob", user)
				} else {
					refused(user, "blob", err.Error())
				}
			}
			// She still may, and what she pinned is not pulled again.
			become("alice")
			r.Forget()
			d.build("-o", t.TempDir(), dirs["digest"])
			if n := r.Count(http.MethodGet, "/blobs/"); n != 0 {
				t.Errorf("%d blobs were pulled again", n)
			}
			if strings.Contains(d.logText(), "-s3cret") {
				t.Error("a password is in the daemon's log")
			}
		})
	}
}

// Each registry of a build has its own way, and gets its own account only.
func TestSeveralRegistriesInOneBuild(t *testing.T) {
	d := startDaemon(t)
	dir := t.TempDir()
	var hosts []string
	reg := func(o registrytest.Options) *registrytest.Server {
		o.Accounts = map[string]string{}
		n := len(hosts)
		o.Accounts[fmt.Sprint("user", n)] = fmt.Sprint("s3cret", n)
		o.IdentityTokens = map[string]string{fmt.Sprint("identity", n): fmt.Sprint("user", n)}
		r := registrytest.New(t, o)
		hosts = append(hosts, r.Host)
		pushImage(t, r.Host+"/a:1", imageOf(t, layerOf(t, tarOf(t, tarReg(fmt.Sprint("f", n), fmt.Sprint("from ", n))))), &authn.Basic{Username: fmt.Sprint("user", n), Password: fmt.Sprint("s3cret", n)})
		r.Forget()
		return r
	}
	basic := reg(registrytest.Options{Auth: registrytest.Basic})
	bearer := reg(registrytest.Options{Auth: registrytest.Bearer})
	identity := reg(registrytest.Options{Auth: registrytest.Bearer})
	helped := reg(registrytest.Options{Auth: registrytest.Bearer})
	single := reg(registrytest.Options{Auth: registrytest.Bearer})
	open := reg(registrytest.Options{})
	docker := dockerConfig(t, map[string]any{
		"auths": map[string]any{
			basic.Host: map[string]any{"auth": []byte("user0:s3cret0")}, bearer.Host: map[string]any{"auth": []byte("user1:s3cret1")},
			identity.Host: map[string]any{"auth": []byte("<token>:"), "identitytoken": "identity2"},
			single.Host:   map[string]any{"auth": []byte("another:account")},
		},
		"credHelpers": map[string]string{helped.Host: "e2e"},
	})
	scoped := filepath.Join(docker, "buildx", "config", single.Host, "a")
	if err := os.MkdirAll(scoped, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(scoped, "config.json"), fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, single.Host, base64.StdEncoding.EncodeToString([]byte("user4:s3cret4"))), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-e2e"), []byte("#!/bin/sh\nread host; echo \"{\\\"ServerURL\\\":\\\"$host\\\",\\\"Username\\\":\\\"user3\\\",\\\"Secret\\\":\\\"s3cret3\\\"}\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	text := "FROM " + basic.Host + "/a:1\n"
	for n, r := range []*registrytest.Server{bearer, identity, helped, single, open} {
		text += fmt.Sprintf("COPY --from=%s/a:1 /f%d /\n", r.Host, n+1)
	}
	src := write(t, map[string]string{"Dockerfile": text})
	out := t.TempDir()
	res := d.build("-o", out, src)
	for n := range hosts {
		if got := read(t, out, fmt.Sprint("f", n)); got != fmt.Sprint("from ", n) {
			t.Errorf("registry %d gave %q", n, got)
		}
	}
	for n, r := range []*registrytest.Server{basic, bearer, identity, helped, single} {
		d.build("-t", r.Host+"/a:2", "--push", write(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\nLABEL n=" + fmt.Sprint(n) + "\n"}))
	}
	for n, r := range []*registrytest.Server{basic, bearer, identity, helped, single, open} {
		for _, q := range r.Requests() {
			sent := q.Authorization
			if b, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(sent, "Basic ")); err == nil {
				sent = string(b)
			}
			if r == open && sent != "" {
				t.Errorf("the open registry was sent %q", sent)
			}
			// Only one registry has no other way than to be told the password by the daemon.
			if r != basic && !strings.HasPrefix(q.Path, "/token") && strings.Contains(sent, ":") {
				t.Errorf("registry %d was sent a password at %s", n, q.Path)
			}
			for other := range hosts {
				if other != n && strings.Contains(sent, fmt.Sprint("user", other)) {
					t.Errorf("registry %d was sent the account of %d", n, other)
				}
			}
			if r != basic && q.Path == "/token" && strings.HasPrefix(q.UserAgent, "slipway/") && strings.Contains(sent, ":") {
				t.Errorf("the daemon had the password of registry %d: %+v", n, q)
			}
		}
	}
	if strings.Contains(res.all()+d.logText(), "s3cret") || strings.Contains(res.all()+d.logText(), "identity2") {
		t.Error("a secret was printed")
	}
}

// Tokens that last two seconds end in the middle of everything.
func TestTokensThatExpireInTheMiddle(t *testing.T) {
	d := startDaemon(t)
	r := registrytest.New(t, registrytest.Options{Auth: registrytest.Bearer, Accounts: map[string]string{"jane": "s3cret"}, Lifetime: 2})
	asUser(t, map[string]string{r.Host: "jane:s3cret"})
	var copies string
	var layers []string
	for i := range 3 {
		name := fmt.Sprint("f", i)
		layers = append(layers, name)
		copies += "COPY " + name + " /\n"
	}
	img := imageOf(t, layerOf(t, tarOf(t, tarReg("f0", strings.Repeat("0", 100_000)))), layerOf(t, tarOf(t, tarReg("f1", strings.Repeat("1", 100_000)))))
	pushImage(t, r.Host+"/base:1", img, &authn.Basic{Username: "jane", Password: "s3cret"})
	r.Forget()
	// Every blob is refused while its token is still good, so that it has ended when the daemon comes again; and some answers come late.
	var cut, late atomic.Int32
	r.Fault(func(w http.ResponseWriter, q *http.Request) bool {
		switch {
		case q.Method == http.MethodGet && strings.Contains(q.URL.Path, "/blobs/") && cut.Add(1)%3 == 1:
			w.Header().Set("Content-Length", "1000000")
			_, _ = w.Write([]byte{})
			time.Sleep(2200 * time.Millisecond)
			panic(http.ErrAbortHandler)
		case (q.Method == http.MethodPut || q.Method == http.MethodPatch) && late.Add(1)%2 == 1:
			time.Sleep(2200 * time.Millisecond) // it is looked at the token after that
		}
		return false
	})
	context := map[string]string{"Dockerfile": "FROM " + r.Host + "/base:1\n" + copies}
	for i, name := range layers {
		context[name] = strings.Repeat(fmt.Sprint("new", i), 50_000)
	}
	out := t.TempDir()
	src := write(t, context)
	d.build("-o", out, src)
	d.build("-t", r.Host+"/pushed:1", "--push", src)
	for _, name := range layers {
		if read(t, out, name) != context[name] {
			t.Errorf("%s is not what it was", name)
		}
	}
	r.Fault(nil)
	out = t.TempDir()
	d.build("-o", out, write(t, map[string]string{"Dockerfile": "FROM " + r.Host + "/pushed:1\n"}))
	for _, name := range layers {
		if read(t, out, name) != context[name] {
			t.Errorf("%s was not pushed as it is", name)
		}
	}
	if n := r.Count("", "/token"); n < 3 || cut.Load() < 2 || late.Load() < 2 {
		t.Errorf("%d tokens, %d blobs, %d uploads: nothing expired in the middle", n, cut.Load(), late.Load())
	}
}

// A helper that hangs or fails is named, and the build ends; one that is not needed is not run.
func TestCredentialHelpersThatFail(t *testing.T) {
	d := startDaemon(t)
	private := registrytest.New(t, registrytest.Options{Auth: registrytest.Bearer, Accounts: map[string]string{"jane": "s3cret"}})
	open := registrytest.New(t, registrytest.Options{})
	base := imageOf(t, layerOf(t, tarOf(t, tarReg("f", "open"))))
	pushImage(t, open.Host+"/a:1", base)
	pushImage(t, private.Host+"/a:1", base, &authn.Basic{Username: "jane", Password: "s3cret"})
	bin := t.TempDir()
	for name, script := range map[string]string{"hangs": "sleep 600", "fails": "echo the vault is sealed; exit 3"} {
		if err := os.WriteFile(filepath.Join(bin, "docker-credential-"+name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	for helper, want := range map[string]string{
		"hangs":  "docker-credential-hangs: no answer within 30s",
		"fails":  "docker-credential-fails: exit status 3: the vault is sealed",
		"absent": "docker-credential-absent",
	} {
		t.Run(helper, func(t *testing.T) {
			dockerConfig(t, map[string]any{"credHelpers": map[string]string{private.Host: helper, "elsewhere.invalid": "hangs"}})
			begin := time.Now()
			res := d.run("build", "-o", "type=cacheonly", write(t, map[string]string{"Dockerfile": "FROM " + private.Host + "/a:1\nCOPY --from=" + private.Host + "/b:1 /f /\n"}))
			if took := time.Since(begin); res.code != 1 || !strings.Contains(res.errOut, want) || took > 55*time.Second {
				t.Errorf("exit %d after %s, want %q:\n%s", res.code, took, want, res.errOut)
			}
			dockerConfig(t, map[string]any{"credsStore": helper})
			d.build("-o", "type=cacheonly", "--no-cache", write(t, map[string]string{"Dockerfile": "FROM " + open.Host + "/a:1\n"}))
		})
	}
}
