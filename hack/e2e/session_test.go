package e2e

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	buildkitsession "github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
	"github.com/tonistiigi/fsutil"
)

// A door is a way for BuildKit's own client to reach the daemon.
type door struct {
	name string
	open func(*testing.T, *daemon) *client.Client
}

// doors are buildctl's, gRPC on the socket with the session in a stream, and docker's, HTTP connections that are upgraded.
var doors = []door{
	{"grpc", func(t *testing.T, d *daemon) *client.Client { return d.client(t) }},
	{"docker", func(t *testing.T, d *daemon) *client.Client {
		return d.client(t,
			client.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return d.upgrade(ctx, "/grpc", nil) }),
			client.WithSessionDialer(func(ctx context.Context, proto string, meta map[string][]string) (net.Conn, error) {
				if proto != "h2c" {
					return nil, fmt.Errorf("upgrade to %s?", proto)
				}
				return d.upgrade(ctx, "/session", meta)
			}))
	}},
}

func (d *daemon) client(t *testing.T, opts ...client.ClientOpt) *client.Client {
	t.Helper()
	c, err := client.New(t.Context(), "unix://"+d.socket, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// upgrade turns a POST into a connection for HTTP/2, as docker's client does.
func (d *daemon) upgrade(ctx context.Context, path string, header http.Header) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", d.socket)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://docker"+path, nil)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[http.CanonicalHeaderKey(k)] = v
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "h2c")
	if err := req.Write(conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, req)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		b, _ := io.ReadAll(res.Body)
		return nil, errors.Join(fmt.Errorf("%s: %s", res.Status, b), conn.Close())
	}
	return &bufferedConn{conn, r}, nil
}

type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

func mount(t *testing.T, dir string) fsutil.FS {
	t.Helper()
	f, err := fsutil.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// story collects what a build says.
type story struct {
	ch       chan *client.SolveStatus
	done     chan struct{}
	vertices map[string]*client.Vertex // by name
	logs     bytes.Buffer
}

func newStory() *story {
	s := &story{ch: make(chan *client.SolveStatus), done: make(chan struct{}), vertices: map[string]*client.Vertex{}}
	go func() {
		defer close(s.done)
		for st := range s.ch {
			for _, v := range st.Vertexes {
				s.vertices[v.Name] = v
			}
			for _, l := range st.Logs {
				s.logs.Write(l.Data)
			}
		}
	}()
	return s
}

func busyboxDir(t *testing.T) string {
	t.Helper()
	return strings.TrimPrefix(busyboxContext(t), "--build-context=busybox=")
}

func TestBuildKitClientThroughBothDoors(t *testing.T) {
	d := startDaemon(t)
	busybox := busyboxDir(t)
	key := filepath.Join(t.TempDir(), "key")
	need(t, "ssh-keygen")
	run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
	agent := startAgent(t, key)
	for _, door := range doors {
		t.Run(door.name, func(t *testing.T) {
			c := door.open(t, d)
			dir := write(t, map[string]string{"f": "from the client by " + door.name, "Dockerfile": base + `COPY f /f
RUN --mount=type=secret,id=s --mount=type=ssh cat /run/secrets/s > /secret; test -S "$SSH_AUTH_SOCK" && echo said by the step
`})
			ssh, err := sshprovider.NewSSHAgentProvider([]sshprovider.AgentConfig{{Paths: []string{agent}}})
			if err != nil {
				t.Fatal(err)
			}
			out := t.TempDir()
			files := t.TempDir()
			file := func(name string) func(map[string]string) (io.WriteCloser, error) {
				return func(map[string]string) (io.WriteCloser, error) { return os.Create(filepath.Join(files, name)) }
			}
			opt := client.SolveOpt{
				Frontend:      "dockerfile.v0",
				FrontendAttrs: map[string]string{"context:busybox": "local:busybox", "build-arg:SLIPWAY_ALLOW_SECRET_LEAK": "s"},
				LocalMounts:   map[string]fsutil.FS{"context": mount(t, dir), "dockerfile": mount(t, dir), "busybox": mount(t, busybox)},
				Session:       []buildkitsession.Attachable{secretsprovider.FromMap(map[string][]byte{"s": []byte("hush " + door.name)}), ssh},
				Exports: []client.ExportEntry{
					{Type: client.ExporterLocal, OutputDir: out},
					{Type: client.ExporterTar, Output: file("tar")},
					{Type: client.ExporterOCI, Output: file("oci")},
					{Type: client.ExporterDocker, Attrs: map[string]string{"name": "example.com/by/" + door.name + ":1"}, Output: file("docker")},
				},
			}
			s := newStory()
			res, err := c.Solve(t.Context(), nil, opt, s.ch)
			if err != nil {
				t.Fatal(err)
			}
			<-s.done
			if got := read(t, out, "f") + "; " + read(t, out, "secret"); got != "from the client by "+door.name+"; hush "+door.name {
				t.Errorf("local: %q", got)
			}
			if res.ExporterResponse["containerimage.digest"] == "" {
				t.Errorf("no digest in %v", res.ExporterResponse)
			}
			if !strings.Contains(s.logs.String(), "said by the step") {
				t.Errorf("the log: %q", s.logs.String())
			}
			for name, v := range s.vertices {
				if v.Completed == nil {
					t.Errorf("%s never ended", name)
				}
			}
			for archive, want := range map[string]string{"tar": "secret", "oci": "index.json", "docker": "manifest.json"} {
				found := false
				readTar(t, filepath.Join(files, archive), func(h *tar.Header, _ []byte) { found = found || strings.TrimPrefix(h.Name, "./") == want })
				if !found {
					t.Errorf("%s: no %s in it", archive, want)
				}
			}
		})
	}
}

// solve builds LLB into a new directory.
func solve(t *testing.T, c *client.Client, state llb.State, opt client.SolveOpt) string {
	t.Helper()
	out, err := trySolve(t, c, state, opt)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func trySolve(t *testing.T, c *client.Client, state llb.State, opt client.SolveOpt) (string, error) {
	t.Helper()
	def, err := state.Marshal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	opt.Exports = []client.ExportEntry{{Type: client.ExporterLocal, OutputDir: out}}
	_, err = c.Solve(t.Context(), def, opt, nil)
	return out, err
}

func TestLLBDefinitions(t *testing.T) {
	d := startDaemon(t)
	c := d.client(t)
	root := t.TempDir()
	gitRepository(t, root, "r.git")
	repository := gitServer(t, root, "")
	web := serveFiles(t, map[string][]byte{"/data": []byte("over http")})
	opt := client.SolveOpt{LocalMounts: map[string]fsutil.FS{
		"busybox": mount(t, busyboxDir(t)),
		"src":     mount(t, write(t, map[string]string{"a/1.txt": "1", "a/2.md": "2", "b/3.txt": "3"})),
	}}
	rootfs := llb.Scratch().File(llb.Copy(llb.Local("busybox"), "busybox", "/bin/sh", &llb.CopyInfo{CreateDestPath: true}))

	t.Run("exec", func(t *testing.T) {
		st := rootfs.AddEnv("WHO", "env").Dir("/work").Run(llb.Args([]string{"/bin/sh", "-c", "echo $WHO in $PWD > /out/it; echo kept > here"}))
		out := st.AddMount("/out", llb.Scratch())
		if got := read(t, solve(t, c, out, opt), "it"); got != "env in /work\n" {
			t.Errorf("mount: %q", got)
		}
		if got := read(t, solve(t, c, st.Root(), opt), "work/here"); got != "kept\n" {
			t.Errorf("root: %q", got)
		}
	})
	t.Run("file", func(t *testing.T) {
		st := llb.Scratch().File(llb.Mkdir("/d/e", 0o750, llb.WithParents(true)).Mkfile("/d/e/f", 0o600, []byte("made")).
			Symlink("e/f", "/d/link").Mkfile("/gone", 0o600, nil).Rm("/gone"))
		st = st.File(llb.Copy(llb.Local("src"), "/a/*.txt", "/copied/", &llb.CopyInfo{AllowWildcard: true, CreateDestPath: true}))
		out := solve(t, c, st, opt)
		if got := list(t, out); !slices.Equal(got, []string{"copied/1.txt", "d/e/f", "d/link"}) || read(t, out, "d/link") != "made" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("merge and diff", func(t *testing.T) {
		one := llb.Scratch().File(llb.Mkfile("/one", 0o600, []byte("1"))).File(llb.Mkfile("/both", 0o600, []byte("1")))
		two := llb.Scratch().File(llb.Mkfile("/two", 0o600, []byte("2"))).File(llb.Mkfile("/both", 0o600, []byte("2")))
		out := solve(t, c, llb.Merge([]llb.State{one, two}), opt)
		if got := list(t, out); !slices.Equal(got, []string{"both", "one", "two"}) || read(t, out, "both") != "2" {
			t.Errorf("merge: %q", got)
		}
		changed := one.File(llb.Rm("/one").Mkfile("/new", 0o600, nil))
		if got := list(t, solve(t, c, llb.Diff(one, changed), opt)); !slices.Equal(got, []string{"new"}) {
			t.Errorf("diff: %q", got)
		}
		elsewhere := llb.Merge([]llb.State{one.File(llb.Mkfile("/three", 0o600, nil)), llb.Diff(one, changed)})
		if got := list(t, solve(t, c, elsewhere, opt)); !slices.Equal(got, []string{"both", "new", "three"}) {
			t.Errorf("a removal carried by a diff: %q", got)
		}
		ran := rootfs.Run(llb.Args([]string{"/bin/sh", "-c", "echo x > /x"})).Root()
		if got := list(t, solve(t, c, llb.Diff(rootfs, ran), opt)); !slices.Contains(got, "x") || slices.Contains(got, "bin/sh") {
			t.Errorf("diff of a step: %q", got)
		}
	})
	t.Run("sources", func(t *testing.T) {
		out := solve(t, c, llb.HTTP(web.URL+"/data", llb.Filename("named")), opt)
		if got := read(t, out, "named"); got != "over http" {
			t.Errorf("http: %q", got)
		}
		out = solve(t, c, llb.Git(repository.URL+"/r.git", "v1"), opt)
		if got := read(t, out, "version"); got != "first" {
			t.Errorf("git: %q", got)
		}
		out = solve(t, c, llb.Local("src", llb.IncludePatterns([]string{"**/*.txt"}), llb.ExcludePatterns([]string{"b"})), opt)
		if got := list(t, out); !slices.Equal(got, []string{"a/1.txt"}) {
			t.Errorf("local: %q", got)
		}
	})
	t.Run("nothing", func(t *testing.T) {
		if got := list(t, solve(t, c, llb.Scratch().File(llb.Mkdir("/empty", 0o700)), opt)); len(got) != 0 {
			t.Errorf("got %q", got)
		}
	})
	t.Run("errors", func(t *testing.T) {
		for want, st := range map[string]llb.State{
			"exit code: 3":     rootfs.Run(llb.Args([]string{"/bin/sh", "-c", "exit 3"})).Root(),
			"/absent":          llb.Scratch().File(llb.Copy(llb.Local("src"), "/absent", "/")),
			"absent-directory": llb.Local("absent-directory"),
		} {
			if _, err := trySolve(t, c, st, opt); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		}
	})
}

// A gateway client is refused clearly, or served; it never hangs.
func TestGatewayClient(t *testing.T) {
	d := startDaemon(t)
	c := d.client(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err := c.Build(ctx, client.SolveOpt{}, "test", func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
		def, err := llb.Scratch().File(llb.Mkfile("/f", 0o600, []byte("x"))).Marshal(ctx)
		if err != nil {
			return nil, err
		}
		return g.Solve(ctx, gateway.SolveRequest{Definition: def.ToPB(), Evaluate: true})
	}, nil)
	if err != nil {
		t.Errorf("a build driven by the client: %v", err)
	}
}

func TestAnswersAboutTheDaemon(t *testing.T) {
	d := startDaemon(t)
	c := d.client(t)
	ctx := t.Context()
	if err := c.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	info, err := c.Info(ctx)
	if err != nil || info.BuildkitVersion.Version == "" {
		t.Errorf("info: %+v, %v", info, err)
	}
	workers, err := c.ListWorkers(ctx)
	if err != nil || len(workers) != 1 || workers[0].ID == "" || len(workers[0].Platforms) == 0 {
		t.Errorf("workers: %+v, %v", workers, err)
	}
	if workers, err := c.ListWorkers(ctx, client.WithFilter([]string{"id==nobody"})); err != nil || len(workers) != 0 {
		t.Errorf("workers called nobody: %v, %v", workers, err)
	}

	dir := write(t, map[string]string{"Dockerfile": base + "RUN --mount=type=cache,target=/c echo told once; head -c 100000 /dev/zero > /c/f; echo told twice >&2\n"})
	ref := "my-own-reference"
	_, err = c.Solve(ctx, nil, client.SolveOpt{Ref: ref, Frontend: "dockerfile.v0", FrontendAttrs: map[string]string{"context:busybox": "local:busybox"},
		LocalMounts: map[string]fsutil.FS{"context": mount(t, dir), "dockerfile": mount(t, dir), "busybox": mount(t, busyboxDir(t))}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	// Everyone who asks later is told the whole story.
	for range 2 {
		logs, ended := lateStory(t, d, ref)
		if !strings.Contains(logs, "told once") || !strings.Contains(logs, "told twice") {
			t.Errorf("a late reader is told %q", logs)
		}
		if ended < 4 {
			t.Errorf("a late reader sees %d steps end", ended)
		}
	}
	usage, err := c.DiskUsage(ctx)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[client.UsageRecordType]int{}
	for _, u := range usage {
		if u.ID == "" || u.Size < 0 || u.CreatedAt.IsZero() {
			t.Errorf("usage: %+v", u)
		}
		kinds[u.RecordType]++
	}
	if kinds[client.UsageRecordTypeCacheMount] != 1 || kinds[client.UsageRecordTypeRegular] == 0 || kinds[client.UsageRecordTypeLocalSource] == 0 {
		t.Errorf("kinds of records: %v", kinds)
	}
	pruned := make(chan client.UsageInfo)
	var ids []string
	var wg sync.WaitGroup
	wg.Go(func() {
		for u := range pruned {
			ids = append(ids, u.ID)
		}
	})
	err = c.Prune(ctx, pruned, client.PruneAll)
	close(pruned)
	wg.Wait()
	if err != nil || len(ids) == 0 {
		t.Errorf("prune: %v, %v", ids, err)
	}
	if usage, err = c.DiskUsage(ctx); err != nil {
		t.Fatal(err)
	}
	for _, u := range usage {
		if u.RecordType != client.UsageRecordTypeInternal {
			t.Errorf("after prune this is left: %+v", *u)
		}
	}
}

// lateStory reads the story of a build by its reference: its logs, and how many steps ended.
func lateStory(t *testing.T, d *daemon, ref string) (string, int) {
	t.Helper()
	stream, err := d.client(t).ControlClient().Status(t.Context(), &controlapi.StatusRequest{Ref: ref})
	if err != nil {
		t.Fatal(err)
	}
	var logs strings.Builder
	ended := map[string]bool{}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return logs.String(), len(ended)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range m.Logs {
			logs.Write(l.Msg)
		}
		for _, v := range m.Vertexes {
			if v.Completed != nil {
				ended[v.Digest] = true
			}
		}
	}
}

func TestPlainHTTP(t *testing.T) {
	d := startDaemon(t)
	need(t, "curl")
	curl := func(args ...string) string {
		return run(t, "curl", append([]string{"-sS", "--max-time", "20", "--unix-socket", d.socket}, args...)...)
	}
	for _, path := range []string{"/_ping", "/v1.41/_ping"} {
		got := curl("-i", "http://localhost"+path)
		for _, want := range []string{"HTTP/1.1 200", "\r\nApi-Version: 1.", "\r\nBuilder-Version: 2\r\n", "\r\nOstype: linux\r\n", "\r\nDocker-Experimental: false\r\n", "\r\n\r\nOK"} {
			if !strings.Contains(got, want) {
				t.Errorf("%s: no %q in\n%s", path, want, got)
			}
		}
		if head := curl("-I", "http://localhost"+path); !strings.Contains(head, "HTTP/1.1 200") || !strings.Contains(head, "\r\nApi-Version: ") {
			t.Errorf("HEAD %s:\n%s", path, head)
		}
	}
	var v struct{ Version, ApiVersion, MinAPIVersion, Os, Arch string }
	if err := json.Unmarshal([]byte(curl("http://localhost/version")), &v); err != nil {
		t.Fatal(err)
	}
	if v.Version == "" || v.ApiVersion == "" || v.MinAPIVersion == "" || v.Os != "linux" || v.Arch == "" {
		t.Errorf("version: %+v", v)
	}
	for _, test := range []struct {
		want string
		args []string
	}{
		{"404", []string{"http://localhost/no/such/thing"}},
		{"400", []string{"http://localhost/v1.1/_ping"}},
		{"400", []string{"http://localhost/v9.99/version"}},
		{"400", []string{"-X", "POST", "http://localhost/session"}},
		{"400", []string{"-X", "POST", "http://localhost/grpc"}},
		{"400", []string{"-X", "POST", "-H", "Connection: Upgrade", "-H", "Upgrade: tls", "http://localhost/grpc"}},
		{"400", []string{"-X", "POST", "-H", "Connection: Upgrade", "-H", "Upgrade: h2c", "http://localhost/session"}},
	} {
		got := curl(append([]string{"-o", "-", "-w", "\n%{http_code}"}, test.args...)...)
		body, code, _ := strings.Cut(got, "\n")
		code = strings.TrimSpace(code)
		if code == "" {
			body, code = "", got
		}
		if code != test.want || !strings.Contains(body, `"message"`) {
			t.Errorf("%v: %q, want %s and a message", test.args, got, test.want)
		}
	}
}

// Sessions without a build are held open until their clients leave, and then are gone.
func TestSessionsAlone(t *testing.T) {
	d := startDaemon(t)
	dir := write(t, map[string]string{"Dockerfile": "FROM scratch\n"})
	d.build("-o", "type=cacheonly", dir)
	before := d.descriptors()
	const many = 50
	sessions := make([]*buildkitsession.Session, many)
	begun, ended := make(chan struct{}, many), make(chan error, many)
	for i := range sessions {
		s, err := buildkitsession.NewSession(t.Context(), "key")
		if err != nil {
			t.Fatal(err)
		}
		sessions[i] = s
		go func() {
			ended <- s.Run(t.Context(), func(ctx context.Context, _ string, meta map[string][]string) (net.Conn, error) {
				defer func() { begun <- struct{}{} }()
				return d.upgrade(ctx, "/session", meta)
			})
		}()
	}
	for range sessions {
		<-begun
	}
	d.build("-o", "type=cacheonly", dir)
	if n := d.descriptors(); n < many || len(ended) > 0 {
		t.Errorf("%d sessions, and %d open files; %d ended early", many, n, len(ended))
	}
	for _, s := range sessions {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	waitFor(t, "the daemon to forget the sessions", func() bool { return d.descriptors() < before+many/2 })
}
