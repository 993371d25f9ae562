package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// gitRepository makes a bare repository below dir: branch main with a tag v1 on its first commit, and branch topic.
func gitRepository(t *testing.T, dir, name string) string {
	t.Helper()
	bare := filepath.Join(dir, name)
	work := t.TempDir()
	files := map[string]string{
		"Dockerfile":     "FROM scratch\nCOPY version /\n",
		"version":        "first",
		"sub/Dockerfile": "FROM scratch\nCOPY inside /\n",
		"sub/inside":     "sub of main",
	}
	commit := func(message string) {
		for name, text := range files {
			path := filepath.Join(work, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		git(t, work, "add", ".")
		git(t, work, "commit", "-q", "-m", message)
	}
	git(t, work, "init", "-q", "-b", "main")
	commit("first")
	git(t, work, "tag", "-a", "-m", "release", "v1")
	files["version"] = "second"
	commit("second")
	git(t, work, "checkout", "-q", "-b", "topic")
	files["sub/inside"] = "sub of topic"
	commit("third")
	git(t, work, "clone", "-q", "--bare", work, bare)
	git(t, bare, "symbolic-ref", "HEAD", "refs/heads/main")
	return bare
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=A", "GIT_COMMITTER_EMAIL=a@example.com")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// gitServer serves repositories over http. With a token, nobody gets in without it.
func gitServer(t *testing.T, root, token string) *httptest.Server {
	t.Helper()
	need(t, "git")
	path := filepath.Join(git(t, root, "--exec-path"), "git-http-backend")
	if _, err := os.Stat(path); err != nil {
		t.Skipf("needs git's http server: %v", err)
	}
	backend := &cgi.Handler{Path: path, Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1",
		"GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		want := "basic " + base64.StdEncoding.EncodeToString([]byte("x-access-token:"+token))
		if got := r.Header.Get("Authorization"); token != "" && !strings.EqualFold(got, want) {
			w.Header().Set("WWW-Authenticate", `Basic realm="private"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func TestGitOverHTTP(t *testing.T) {
	root := t.TempDir()
	bare := gitRepository(t, root, "r.git")
	s := gitServer(t, root, "")
	d := startDaemon(t)
	first := git(t, bare, "rev-parse", "v1^{commit}")
	for _, test := range []struct{ context, file, want string }{
		{"/r.git", "version", "second"},
		{"/r.git#v1", "version", "first"},
		{"/r.git#refs/heads/main", "version", "second"},
		{"/r.git#" + first, "version", "first"},
		{"/r.git#:sub", "inside", "sub of main"},
		{"/r.git#topic:sub", "inside", "sub of topic"},
		{"/r.git?tag=v1", "version", "first"},
		{"/r.git?branch=topic&subdir=sub", "inside", "sub of topic"},
	} {
		out := t.TempDir()
		d.build("-o", out, s.URL+test.context)
		if got := read(t, out, test.file); got != test.want {
			t.Errorf("%s: %s is %q, want %q", test.context, test.file, got, test.want)
		}
	}
	// A moving branch is seen; what did not move is not fetched again.
	work := t.TempDir()
	git(t, work, "clone", "-q", bare, ".")
	if err := os.WriteFile(filepath.Join(work, "version"), []byte("pushed"), 0o644); err != nil {
		t.Fatal(err)
	}
	git(t, work, "commit", "-q", "-am", "fourth")
	git(t, work, "push", "-q", "origin", "HEAD:main")
	out := t.TempDir()
	d.build("-o", out, s.URL+"/r.git")
	if got := read(t, out, "version"); got != "pushed" {
		t.Errorf("after a push: %q", got)
	}
	for context, want := range map[string]string{
		"/r.git#no-such-branch": "no-such-branch",
		"/r.git#:no/such/dir":   "no/such/dir",
		"/none.git":             "none.git",
	} {
		if r := d.run("build", "--progress", "plain", "-o", "type=cacheonly", s.URL+context); r.code != 1 || !strings.Contains(r.errOut, want) {
			t.Errorf("%s: exit %d, want 1 and %q\n%s", context, r.code, want, r.all())
		}
	}
}

func TestAddFromGit(t *testing.T) {
	root := t.TempDir()
	bare := gitRepository(t, root, "r.git")
	s := gitServer(t, root, "")
	d := startDaemon(t)
	first := git(t, bare, "rev-parse", "v1^{commit}")
	dir := write(t, map[string]string{"Dockerfile": fmt.Sprintf(`FROM scratch
ADD %[1]s/r.git#v1 /v1
ADD --keep-git-dir=true %[1]s/r.git#v1 /kept
ADD %[1]s/r.git#topic:sub /topic
ADD --checksum=%[2]s %[1]s/r.git#v1 /sum
COPY --from=named version /named
`, s.URL, first)})
	out := t.TempDir()
	d.build("--build-context", "named="+s.URL+"/r.git#main", "-o", out, dir)
	for file, want := range map[string]string{"v1/version": "first", "kept/version": "first", "topic/inside": "sub of topic", "sum/version": "first", "named": "second"} {
		if got := read(t, out, file); got != want {
			t.Errorf("%s: %q, want %q", file, got, want)
		}
	}
	if _, err := os.Stat(filepath.Join(out, "kept/.git")); err != nil {
		t.Errorf("--keep-git-dir: %v", err)
	}
	if _, err := os.Stat(filepath.Join(out, "v1/.git")); err == nil {
		t.Error("without --keep-git-dir .git is there")
	}
	wrong := write(t, map[string]string{"Dockerfile": fmt.Sprintf("FROM scratch\nADD --checksum=%s %s/r.git#topic /\n", first, s.URL)})
	if r := d.run("build", "-o", "type=cacheonly", wrong); r.code != 1 || !strings.Contains(r.errOut, first[:12]) {
		t.Errorf("another commit than the checksum's: exit %d\n%s", r.code, r.all())
	}
}

func TestPrivateGit(t *testing.T) {
	root := t.TempDir()
	gitRepository(t, root, "r.git")
	const token = "ghp_topsecret"
	s := gitServer(t, root, token)
	d := startDaemon(t)
	t.Setenv("GIT_AUTH_TOKEN", token)
	out := t.TempDir()
	r := d.build("--secret", "id=GIT_AUTH_TOKEN", "-o", out, s.URL+"/r.git#v1")
	if got := read(t, out, "version"); got != "first" {
		t.Errorf("got %q", got)
	}
	if strings.Contains(r.all(), token) {
		t.Error("the token was printed")
	}
	if grep, err := exec.Command("grep", "-rl", token, d.root).CombinedOutput(); err == nil {
		t.Errorf("the token is on the daemon's disk: %s", grep)
	}
	// What was fetched for one who has the token is not for one who has not.
	for name, args := range map[string][]string{
		"without a token":  nil,
		"with a wrong one": {"--secret", "id=GIT_AUTH_TOKEN,env=WRONG_TOKEN"},
	} {
		t.Setenv("WRONG_TOKEN", "wrong")
		args = append([]string{"build", "--progress", "plain", "-o", "type=cacheonly"}, args...)
		if r := d.run(append(args, s.URL+"/r.git#v1")...); r.code != 1 {
			t.Errorf("%s: exit %d\n%s", name, r.code, r.all())
		}
	}
}

// sshServer starts sshd on loopback and an agent that holds the key to it.
func sshServer(t *testing.T) (host, agentSocket string) {
	t.Helper()
	need(t, "sshd", "ssh-keygen", "ssh-agent", "ssh-add")
	dir := shortTemp(t)
	if _, err := os.Stat("/run/sshd"); os.IsNotExist(err) {
		if err := os.Mkdir("/run/sshd", 0o755); err != nil {
			t.Skipf("needs sshd's directory: %v", err)
		}
		t.Cleanup(func() { _ = os.Remove("/run/sshd") })
	}
	for _, name := range []string{"host", "user"} {
		run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "e2e "+name, "-f", filepath.Join(dir, name))
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host = l.Addr().String()
	_ = l.Close()
	_, port, err := net.SplitHostPort(host)
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "config")
	if err := os.WriteFile(config, []byte(strings.Join([]string{
		"ListenAddress 127.0.0.1", "Port " + port, "HostKey " + filepath.Join(dir, "host"), "AuthorizedKeysFile " + filepath.Join(dir, "user.pub"),
		"StrictModes no", "UsePAM no", "PermitRootLogin yes", "PasswordAuthentication no", "PidFile none", ""}, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	sshd, err := exec.LookPath("sshd")
	if err != nil {
		t.Fatal(err)
	}
	start(t, sshd, "-D", "-e", "-f", config)
	agentSocket = startAgent(t, filepath.Join(dir, "user"))
	waitFor(t, "sshd to listen", func() bool {
		c, err := net.Dial("tcp", host)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return host, agentSocket
}

// startAgent starts an ssh agent that holds a key.
func startAgent(t *testing.T, key string) string {
	t.Helper()
	need(t, "ssh-agent", "ssh-add")
	socket := filepath.Join(shortTemp(t), "agent")
	start(t, "ssh-agent", "-D", "-a", socket)
	waitFor(t, "the agent to listen", func() bool { _, err := os.Stat(socket); return err == nil })
	cmd := exec.Command("ssh-add", "-q", key)
	cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ssh-add: %v\n%s", err, out)
	}
	return socket
}

// start runs a program until the test ends.
func start(t *testing.T, name string, args ...string) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", name, out.String())
		}
	})
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func TestGitOverSSH(t *testing.T) {
	need(t, "git")
	host, socket := sshServer(t)
	root := t.TempDir()
	bare := gitRepository(t, root, "r.git")
	d := startDaemon(t)
	url := "ssh://root@" + host + bare
	out := t.TempDir()
	d.build("--ssh", "default="+socket, "-o", out, url+"#topic:sub")
	if got := read(t, out, "inside"); got != "sub of topic" {
		t.Errorf("context: %q", got)
	}
	t.Setenv("SSH_AUTH_SOCK", socket)
	dir := write(t, map[string]string{"Dockerfile": "FROM scratch\nADD " + url + "#v1 /\n"})
	d.build("--ssh", "default", "-o", out, dir)
	if got := read(t, out, "version"); got != "first" {
		t.Errorf("ADD: %q", got)
	}
	if r := d.run("build", "--progress", "plain", "-o", "type=cacheonly", "--no-cache", dir); r.code != 1 || !strings.Contains(r.errOut, `no SSH key "default" forwarded`) {
		t.Errorf("without an agent: exit %d\n%s", r.code, r.all())
	}
}

// files serves named bytes and counts who asks.
type files struct {
	*httptest.Server
	mu    sync.Mutex
	bytes map[string][]byte
	sent  map[string]int
}

func serveFiles(t *testing.T, content map[string][]byte) *files {
	t.Helper()
	f := &files{bytes: content, sent: map[string]int{}}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		b, ok := f.bytes[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		etag := fmt.Sprintf(`"%x"`, sha256.Sum256(b))
		w.Header().Set("ETag", etag)
		if r.Header.Get("If-None-Match") == etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		if r.Method == http.MethodGet {
			f.sent[r.URL.Path]++
		}
		_, _ = w.Write(b)
	}))
	t.Cleanup(f.Close)
	return f
}

func (f *files) count(path string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sent[path]
}

func tarball(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		body := h.PAXRecords["body"]
		h.PAXRecords = nil
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		h.Size = int64(len(body))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// regular is a file for tarball.
func regular(name, body string) tar.Header {
	return tar.Header{Name: name, PAXRecords: map[string]string{"body": body}}
}

func TestHTTPContexts(t *testing.T) {
	d := startDaemon(t)
	f := serveFiles(t, map[string][]byte{
		"/ctx.tar":   tarball(t, regular("Dockerfile", "FROM scratch\nCOPY f /\n"), regular("f", "in an archive"), regular("other/Dockerfile", "FROM scratch\nCOPY f /g\n")),
		"/Dockerf":   []byte("FROM scratch AS one\nCOPY <<EOF /here\nfrom a URL\nEOF\n"),
		"/data":      []byte("data"),
		"/named.tar": tarball(t, regular("inside", "named over http")),
	})
	out := t.TempDir()
	d.build("-o", out, f.URL+"/ctx.tar")
	if got := read(t, out, "f"); got != "in an archive" {
		t.Errorf("archive: %q", got)
	}
	d.build("-o", out, "-f", "other/Dockerfile", f.URL+"/ctx.tar")
	if got := read(t, out, "g"); got != "in an archive" {
		t.Errorf("archive with -f: %q", got)
	}
	d.build("-o", out, f.URL+"/Dockerf")
	if got := read(t, out, "here"); got != "from a URL\n" {
		t.Errorf("Dockerfile: %q", got)
	}
	if r := d.runContext(t.Context(), []byte("FROM scratch\nCOPY f /h\n"), "build", "-o", out, "-f", "-", f.URL+"/ctx.tar"); r.code != 0 {
		t.Errorf("Dockerfile on stdin, context by URL: %s", r.all())
	} else if got := read(t, out, "h"); got != "in an archive" {
		t.Errorf("Dockerfile on stdin, context by URL: %q", got)
	}
	if r := d.run("build", "-o", "type=cacheonly", f.URL+"/none.tar"); r.code != 1 || !strings.Contains(r.errOut, "404") {
		t.Errorf("no such context: exit %d\n%s", r.code, r.all())
	}

	sum := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("data")))
	dir := write(t, map[string]string{"Dockerfile": fmt.Sprintf(`FROM scratch
ADD %[1]s/data /plain
ADD --chmod=751 --chown=3:4 %[1]s/data /mode/
ADD --checksum=%[2]s %[1]s/data /sum
ADD --unpack=true %[1]s/named.tar /unpacked/
COPY --from=named context /named.tar
`, f.URL, sum)})
	d.build("--build-context", "named="+f.URL+"/named.tar", "-o", out, dir)
	for file, want := range map[string]string{"plain": "data", "mode/data": "data", "sum": "data", "unpacked/inside": "named over http", "named.tar": string(f.bytes["/named.tar"])} {
		if got := read(t, out, file); got != want {
			t.Errorf("%s: %q", file, got)
		}
	}
	if fi, err := os.Stat(filepath.Join(out, "plain")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("a file from a URL has mode %v, want 600; %v", fi.Mode(), err)
	}
	if fi, err := os.Stat(filepath.Join(out, "mode/data")); err != nil || fi.Mode().Perm() != 0o751 {
		t.Errorf("--chmod: %v, %v", fi.Mode(), err)
	}
	before := f.count("/data")
	assertAllCached(t, d.build("--build-context", "named="+f.URL+"/named.tar", "-o", out, dir))
	if n := f.count("/data"); n != before {
		t.Errorf("an unchanged file was sent again, %d times", n-before)
	}
	f.mu.Lock()
	f.bytes["/data"] = []byte("other")
	f.mu.Unlock()
	// What a checksum names is here already, whatever the server has now.
	pinned := write(t, map[string]string{"Dockerfile": fmt.Sprintf("FROM scratch\nADD --checksum=%s %s/data /pinned\n", sum, f.URL)})
	d.build("-o", out, pinned)
	if got := read(t, out, "pinned"); got != "data" {
		t.Errorf("pinned by a checksum: %q", got)
	}
	d.stop()
	if err := os.RemoveAll(d.root); err != nil {
		t.Fatal(err)
	}
	d.start()
	if r := d.run("build", "-o", "type=cacheonly", pinned); r.code != 1 || !strings.Contains(r.errOut, sum) {
		t.Errorf("a file that is not what the checksum says: exit %d\n%s", r.code, r.all())
	}
	plain := write(t, map[string]string{"Dockerfile": "FROM scratch\nADD " + f.URL + "/data /plain\n"})
	d.build("-o", out, plain)
	if got := read(t, out, "plain"); got != "other" {
		t.Errorf("after a change: %q", got)
	}
}

// list names the files below a directory.
func list(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			rel, _ := filepath.Rel(dir, path)
			names = append(names, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

func TestIgnoreFiles(t *testing.T) {
	d := startDaemon(t)
	all := map[string]string{
		"a.txt": "", "b.md": "", "keep.md": "", "docs/x.txt": "", "docs/README": "", "docs/deep/README": "", "tmp/1": "", "tmp/keep/2": "", "node/tmp/3": "", "# hash": "",
	}
	for _, test := range []struct {
		name, ignore, file, fileIgnore string
		want                           []string
	}{
		{name: "patterns and negation", ignore: "# comment\n*.md\n!keep.md\ndocs\n!docs/README\n**/tmp\n.dockerignore\nDockerfile*\n\\# hash\n",
			want: []string{"a.txt", "docs/README", "keep.md"}},
		{name: "order counts", ignore: "!keep.md\n*.md\ntmp\nnode\ndocs\n.dockerignore\nDockerfile\n\\#*\n", want: []string{"a.txt"}},
		{name: "everything but", ignore: "*\n!docs/deep\n!/a.txt\n", want: []string{"a.txt", "docs/deep/README"}},
		{name: "below an excluded directory", ignore: "*\n!tmp/keep\n", want: []string{"tmp/keep/2"}},
		{name: "own ignore file of a Dockerfile", ignore: "a.txt\n", file: "other.Dockerfile", fileIgnore: "*\n!a.txt\n", want: []string{"a.txt"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := write(t, all)
			file := test.file
			if file == "" {
				file = "Dockerfile"
			}
			write := func(name, text string) {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			write(file, "FROM scratch\nCOPY . /\n")
			write(".dockerignore", test.ignore)
			if test.fileIgnore != "" {
				write(file+".dockerignore", test.fileIgnore)
			}
			out := t.TempDir()
			d.build("-f", filepath.Join(dir, file), "-o", out, dir)
			if got := list(t, out); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestWhereContextAndDockerfileAre(t *testing.T) {
	d := startDaemon(t)
	out := t.TempDir()
	ctx := write(t, map[string]string{"f": "context", "Dockerfile": "FROM scratch\nCOPY f /inside\n"})
	elsewhere := write(t, map[string]string{"my.Dockerfile": "FROM scratch\nCOPY f /outside\n", "f": "wrong"})
	d.build("-f", filepath.Join(elsewhere, "my.Dockerfile"), "-o", out, ctx)
	if got := read(t, out, "outside"); got != "context" {
		t.Errorf("Dockerfile outside of the context: %q", got)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(ctx, link); err != nil {
		t.Fatal(err)
	}
	d.build("-o", out, link)
	if got := read(t, out, "inside"); got != "context" {
		t.Errorf("a context that is a symlink: %q", got)
	}
	linked := write(t, map[string]string{"f": "linked"})
	if err := os.Symlink(filepath.Join(elsewhere, "my.Dockerfile"), filepath.Join(linked, "Dockerfile")); err != nil {
		t.Fatal(err)
	}
	d.build("-o", out, linked)
	if got := read(t, out, "outside"); got != "linked" {
		t.Errorf("a Dockerfile that is a symlink out of the context: %q", got)
	}
	named := write(t, map[string]string{"n": "named", ".dockerignore": "secret", "secret": "x"})
	user := write(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY --from=extra . /named/\n"})
	d.build("--build-context", "extra="+named, "-o", out, user)
	if got := list(t, filepath.Join(out, "named")); !slices.Equal(got, []string{".dockerignore", "n"}) {
		t.Errorf("a named context has %q", got)
	}
}

func TestOddFilesInContext(t *testing.T) {
	d := startDaemon(t)
	bb := busyboxContext(t)
	dir := write(t, map[string]string{"Dockerfile": base + "COPY . /in\nRUN cd /in && find . -name '*.d' -type f | wc -l > /count; stat -c %F /in/fifo > /fifo; ls /in > /ls\n"})
	long := strings.Repeat("x", 253) + ".d"
	names := []string{"new\nline.d", "ünïcødé 世界.d", " leading.d", "trailing .d", "-dash.d", "quo\"te'.d", "back\\slash.d", "st*r[a].d", long, "tab\t.d"}
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	short := shortTemp(t)
	l, err := net.Listen("unix", filepath.Join(short, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Rename(filepath.Join(short, "socket"), filepath.Join(dir, "socket")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "dangling")); err != nil {
		t.Fatal(err)
	}
	big, err := os.Create(filepath.Join(dir, "big"))
	if err != nil {
		t.Fatal(err)
	}
	if err := big.Truncate(200 << 20); err != nil {
		t.Fatal(err)
	}
	_ = big.Close()
	archive := filepath.Join(t.TempDir(), "out.tar")
	d.build(bb, "-o", "type=tar,dest="+archive, dir)
	found := map[string]string{}
	var bigSize int64
	readTar(t, archive, func(h *tar.Header, body []byte) {
		switch h.Name {
		case "in/big":
			bigSize = h.Size
		default:
			found[h.Name] = string(body)
		}
	})
	for _, name := range names {
		if got, ok := found["in/"+name]; !ok || got != name {
			t.Errorf("%q: %q, %v", name, got, ok)
		}
	}
	if bigSize != 200<<20 {
		t.Errorf("the big file has %d bytes", bigSize)
	}
	if got := strings.TrimSpace(found["fifo"]); got != "fifo" && got != "named pipe" {
		t.Errorf("the named pipe is a %q", got)
	}
	if strings.Contains(found["ls"], "socket") {
		t.Error("a socket was sent")
	}
	// The protocol carries names in UTF-8 alone.
	bad := write(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY . /\n", "bad\xffutf8": ""})
	if r := d.run("build", "-o", "type=cacheonly", bad); r.code != 1 || !strings.Contains(r.errOut, `"bad\xffutf8"`) || !strings.Contains(r.errOut, "UTF-8") {
		t.Errorf("a name that cannot be sent: exit %d\n%s", r.code, r.all())
	}
}

// readTar calls f for each entry of an archive; bodies of more than a megabyte are left out.
func readTar(t *testing.T, path string, f func(*tar.Header, []byte)) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r := tar.NewReader(file)
	for {
		h, err := r.Next()
		if err != nil {
			if err.Error() != "EOF" {
				t.Fatal(err)
			}
			return
		}
		var b bytes.Buffer
		if h.Size <= 1<<20 {
			if _, err := b.ReadFrom(r); err != nil {
				t.Fatal(err)
			}
		}
		f(h, b.Bytes())
	}
}

func TestUnreadableFile(t *testing.T) {
	d := startDaemon(t)
	dir := write(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY sub /\n", "sub/open": "1", "sub/locked": "2"})
	if err := os.Chmod(filepath.Join(dir, "sub/locked"), 0); err != nil {
		t.Fatal(err)
	}
	for path := dir; path != "/" && path != os.TempDir(); path = filepath.Dir(path) {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// Root reads everything: ask as someone else.
	bin := shortTemp(t)
	if err := os.Chmod(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	copyFile(t, filepath.Join(binaries, "slipway"), filepath.Join(bin, "slipway"))
	for _, path := range []string{d.dir, d.socket} {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(filepath.Join(bin, "slipway"), "--addr", "unix://"+d.socket, "build", "--progress", "plain", "-o", "type=cacheonly", dir)
	cmd.Env = append(os.Environ(), "HOME="+bin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "locked") || !strings.Contains(string(out), "permission denied") {
		t.Errorf("a file that the user cannot read: %v\n%s", err, out)
	}
	// Nobody needs it: nobody minds it.
	if err := os.WriteFile(filepath.Join(dir, ".dockerignore"), []byte("**/locked\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	again := exec.Command(cmd.Path, cmd.Args[1:]...)
	again.Env, again.SysProcAttr = cmd.Env, cmd.SysProcAttr
	if out, err := again.CombinedOutput(); err != nil {
		t.Errorf("an ignored file that the user cannot read: %v\n%s", err, out)
	}
}

func TestContextThatMovesWhileItIsRead(t *testing.T) {
	d := startDaemon(t)
	dir := write(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY . /\n", "stable": "stable"})
	for i := range 300 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%d", i)), []byte(strings.Repeat("x", i)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			for n := i; ctx.Err() == nil; n = (n + 7) % 300 {
				path := filepath.Join(dir, fmt.Sprintf("f%d", n))
				_ = os.Remove(path)
				_ = os.WriteFile(path, []byte(strings.Repeat("y", n*100)), 0o644)
			}
		})
	}
	for range 5 {
		out := t.TempDir()
		r := d.run("build", "--progress", "plain", "-o", out, dir)
		// Either outcome is right; an error that names no file is not.
		if r.code != 0 && !regexp.MustCompile(`\bf[0-9]+\b`).MatchString(r.errOut) {
			t.Errorf("exit %d without naming what changed:\n%s", r.code, r.all())
		}
		if r.code == 0 && read(t, out, "stable") != "stable" {
			t.Error("the file that did not change is not there")
		}
	}
	stop()
	wg.Wait()
	out := t.TempDir()
	d.build("-o", out, dir)
	for i := range 300 {
		name := fmt.Sprintf("f%d", i)
		if a, b := read(t, dir, name), read(t, out, name); a != b {
			t.Fatalf("%s differs after everything came to rest: %d and %d bytes", name, len(a), len(b))
		}
	}
}

func TestUnchangedContextIsNotSentAgain(t *testing.T) {
	d := startDaemon(t)
	dir := write(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY . /\n"})
	for i := range 200 {
		sub := filepath.Join(dir, fmt.Sprintf("d%d", i))
		if err := os.Mkdir(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		for j := range 100 {
			if err := os.WriteFile(filepath.Join(sub, fmt.Sprint(j)), []byte("0123456789"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Younger changes than the time stamps' steps could be followed by others that nothing tells apart: such files are read again.
	settle := func(path string) {
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		changed := time.Unix(fi.Sys().(*syscall.Stat_t).Ctim.Unix())
		waitFor(t, "time stamps to settle", func() bool { return time.Since(changed) > 2100*time.Millisecond })
	}
	settle(filepath.Join(dir, "d199/99"))
	sent := func(r result) string {
		m := regexp.MustCompile(`transferring context: *([0-9.]+[kMG]?B )?[^\n]*done`).FindAllStringSubmatch(r.errOut, -1)
		if len(m) == 0 {
			t.Fatalf("no transfer is shown:\n%s", r.errOut)
		}
		if m[len(m)-1][1] == "" {
			return "0B"
		}
		return strings.TrimSpace(m[len(m)-1][1])
	}
	if got := sent(d.build("-o", "type=cacheonly", dir)); !strings.HasSuffix(got, "kB") {
		t.Errorf("the first build was sent %s, want 200 kB and a bit", got)
	}
	r := d.build("-o", "type=cacheonly", dir)
	assertAllCached(t, r)
	if got := sent(r); got != "0B" {
		t.Errorf("an unchanged context was sent again: %s", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "d7/7"), []byte(strings.Repeat("z", 300)), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := sent(d.build("-o", "type=cacheonly", dir)); got != "300B" {
		t.Errorf("for one changed file of 300 bytes %s were sent", got)
	}
}
