package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// dockerCLI is one of docker's command line clients.
type dockerCLI struct {
	path  string
	major int
}

// dockerCLIs lists the clients on this host.
func dockerCLIs() (list []dockerCLI) {
	for _, path := range []string{"/usr/bin/docker", "/usr/local/bin/docker"} {
		out, err := exec.Command(path, "--version").Output()
		m := regexp.MustCompile(`version ([0-9]+)\.`).FindSubmatch(out)
		if err != nil || m == nil {
			continue
		}
		major, _ := strconv.Atoi(string(m[1]))
		list = append(list, dockerCLI{path, major})
	}
	return list
}

// eachDocker runs a test with every client there is.
func eachDocker(t *testing.T, f func(*testing.T, dockerCLI)) {
	t.Helper()
	list := dockerCLIs()
	if len(list) == 0 {
		t.Skip("needs docker's command line client: install docker.io")
	}
	for _, c := range list {
		t.Run(fmt.Sprintf("docker%d", c.major), func(t *testing.T) { f(t, c) })
	}
}

// sessionDocker is a client that builds by session on its own; newer ones leave that to buildx.
func sessionDocker(t *testing.T) dockerCLI {
	t.Helper()
	for _, c := range dockerCLIs() {
		if c.major < 23 {
			return c
		}
	}
	t.Skip("needs a docker client older than 23, which builds by session without buildx: install docker.io of Debian 12")
	return dockerCLI{}
}

// command is a run of the client against a daemon, with BuildKit chosen and a configuration of its own.
func (c dockerCLI) command(ctx context.Context, d *daemon, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.path, args...)
	buildkit := "DOCKER_BUILDKIT=1"
	if c.major >= 23 {
		buildkit = "DOCKER_BUILDKIT=0" // or it looks for buildx, which is tried elsewhere
	}
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+d.socket, buildkit, "DOCKER_CONFIG="+filepath.Join(d.dir, "docker"), "BUILDKIT_PROGRESS=plain")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	return cmd
}

// run runs the client and returns how it ended.
func (c dockerCLI) run(t *testing.T, d *daemon, stdin []byte, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := c.command(ctx, d, args...)
	if stdin != nil {
		cmd.Stdin = bytes.NewReader(stdin)
	}
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	r := result{out: out.String(), errOut: errOut.String()}
	var ee *exec.ExitError
	if errors.As(err, &ee) {
		r.code = ee.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return r
}

// ok runs the client and fails the test if the client fails.
func (c dockerCLI) ok(t *testing.T, d *daemon, stdin []byte, args ...string) result {
	t.Helper()
	r := c.run(t, d, stdin, args...)
	if r.code != 0 {
		t.Fatalf("docker %s: exit %d\n%s\nthe daemon's log:\n%s", strings.Join(args, " "), r.code, r.all(), d.logText())
	}
	return r
}

// withBase builds the image "bb", in which a shell runs, so that other builds find it in the daemon's own store.
func (c dockerCLI) withBase(t *testing.T, d *daemon) {
	t.Helper()
	dir := dirWithBusybox(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n"})
	c.ok(t, d, nil, "build", "-t", "bb", dir)
}

func TestDockerAroundABuild(t *testing.T) {
	eachDocker(t, func(t *testing.T, c dockerCLI) {
		d := startDaemon(t)
		for _, test := range []struct {
			args []string
			want string
		}{
			{[]string{"version"}, "API version:"},
			{[]string{"info"}, "Docker Root Dir: " + d.root},
			{[]string{"ps", "-a"}, "CONTAINER ID"},
			{[]string{"volume", "ls"}, "VOLUME NAME"},
			{[]string{"network", "ls"}, "NETWORK ID"},
			{[]string{"system", "df"}, "Build Cache"},
			{[]string{"system", "df", "-v"}, "Build cache usage"},
			{[]string{"builder", "prune", "-af"}, "reclaimed"},
			{[]string{"container", "prune", "-f"}, "Total reclaimed space: 0B"},
			{[]string{"volume", "prune", "-f"}, "Total reclaimed space: 0B"},
			{[]string{"events", "--since", "1h", "--until", "0s"}, ""},
		} {
			r := c.ok(t, d, nil, test.args...)
			if !strings.Contains(r.out, test.want) || strings.Contains(r.errOut, "WARNING") && test.args[0] == "info" {
				t.Errorf("docker %v:\n%s\nwant %q", test.args, r.all(), test.want)
			}
		}
		for _, args := range [][]string{{"run", "x"}, {"swarm", "init"}, {"volume", "create", "x"}, {"network", "create", "x"}} {
			if r := c.run(t, d, nil, args...); r.code == 0 || !strings.Contains(r.errOut, "this is a build engine") && args[0] != "run" {
				t.Errorf("docker %v: exit %d\n%s", args, r.code, r.all())
			}
		}
	})
}

func TestDockerBuildContexts(t *testing.T) {
	c := sessionDocker(t)
	need(t, "git")
	d := startDaemon(t)
	root := t.TempDir()
	gitRepository(t, root, "r.git")
	repos := gitServer(t, root, "")
	archive := tarball(t, regular("Dockerfile", "FROM scratch\nCOPY f /\n"), regular("f", "in an archive"), regular("other/Dockerfile", "FROM scratch\nCOPY f /g\n"))
	f := serveFiles(t, map[string][]byte{"/ctx.tar": archive, "/Dockerf": []byte("FROM scratch\nCOPY <<EOF /here\nfrom a URL\nEOF\n")})
	dir := write(t, map[string]string{
		"Dockerfile": "FROM scratch\nCOPY . /\n", "a": "a file", "ignored": "x", ".dockerignore": "ignored\n", "sub/D": "FROM scratch\nCOPY a /from-sub\n",
	})
	heredoc := []byte("FROM scratch\nCOPY <<EOF /text\nfrom stdin\nEOF\n")
	for _, test := range []struct {
		name, file, want string
		stdin            []byte
		args             []string
	}{
		{"directory", "a", "a file", nil, []string{dir}},
		{"Dockerfile in it", "from-sub", "a file", nil, []string{"-f", filepath.Join(dir, "sub/D"), dir}},
		{"Dockerfile on stdin", "text", "from stdin", heredoc, []string{"-"}},
		{"Dockerfile on stdin and a directory", "b", "a file", []byte("FROM scratch\nCOPY a /b\n"), []string{"-f", "-", dir}},
		{"tar on stdin", "f", "in an archive", archive, []string{"-"}},
		{"Dockerfile in a tar on stdin", "g", "in an archive", archive, []string{"-f", "other/Dockerfile", "-"}},
		{"git", "version", "second", nil, []string{repos.URL + "/r.git"}},
		{"git directory of a branch", "inside", "sub of topic", nil, []string{repos.URL + "/r.git#topic:sub"}},
		{"tar at a URL", "f", "in an archive", nil, []string{f.URL + "/ctx.tar"}},
		{"Dockerfile at a URL", "here", "from a URL\n", nil, []string{f.URL + "/Dockerf"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			out := t.TempDir()
			c.ok(t, d, test.stdin, append([]string{"build", "-o", out}, test.args...)...)
			if got := read(t, out, test.file); strings.TrimSpace(got) != strings.TrimSpace(test.want) {
				t.Errorf("%s is %q, want %q", test.file, got, test.want)
			}
			if slices.Contains(list(t, out), "ignored") {
				t.Error("an ignored file is there")
			}
		})
	}
	if r := c.run(t, d, heredoc, "build", "-f", "-", "-"); r.code != 1 || !strings.Contains(r.errOut, "can't use stdin for both") {
		t.Errorf("both stdin: exit %d\n%s", r.code, r.all())
	}
}

func TestDockerBuildFlags(t *testing.T) {
	c := sessionDocker(t)
	d := startDaemon(t)
	c.withBase(t, d)
	dir := write(t, map[string]string{"Dockerfile": `FROM bb AS one
ARG A=unset
RUN echo $A > /arg; grep example.test /etc/hosts > /hosts; ulimit -n > /nofile; cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max > /memory 2>/dev/null || true; df -k /dev/shm | tail -1 > /shm
RUN echo second > /second
FROM one AS two
RUN echo two > /two
`})
	out := t.TempDir()
	c.ok(t, d, nil, "build", "--build-arg", "A=given", "--add-host", "example.test:10.1.2.3", "--ulimit", "nofile=123:456",
		"--memory", "64m", "--shm-size", "8m", "--target", "one", "-o", out, dir)
	for file, want := range map[string]string{"arg": "given", "hosts": "10.1.2.3", "nofile": "123", "memory": "67108864", "shm": " 8192 "} {
		if got := read(t, out, file); !strings.Contains(got, want) {
			t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
	if slices.Contains(list(t, out), "two") {
		t.Error("a stage beyond the target was built")
	}
	if r := c.run(t, d, nil, "build", "--target", "three", dir); r.code != 1 || !strings.Contains(r.errOut, `target stage "three" could not be found`) {
		t.Errorf("unknown target: exit %d\n%s", r.code, r.all())
	}
	c.ok(t, d, nil, "build", dir)
	if again := c.ok(t, d, nil, "build", dir); strings.Count(again.errOut, "CACHED") < 3 {
		t.Errorf("nothing is cached the second time:\n%s", again.errOut)
	}
	if r := c.ok(t, d, nil, "build", "--no-cache", dir); regexp.MustCompile(`(?m)RUN .*\n(#.*\n)*#[0-9]+ CACHED`).MatchString(r.errOut) {
		t.Errorf("--no-cache uses the cache:\n%s", r.errOut)
	}
	id := strings.TrimSpace(c.ok(t, d, nil, "build", "-q", "--label", "l=v", "-t", "named:1", "-t", "other", "--iidfile", filepath.Join(out, "iid"), dir).out)
	if !regexp.MustCompile(`^sha256:[0-9a-f]{64}$`).MatchString(id) || read(t, out, "iid") != id {
		t.Errorf("-q printed %q, --iidfile has %q", id, read(t, out, "iid"))
	}
	if unlabelled := strings.TrimSpace(c.ok(t, d, nil, "build", "-q", dir).out); unlabelled == id {
		t.Error("the label changes nothing")
	}
	// The names are there for other builds.
	c.ok(t, d, []byte("FROM named:1\nRUN test -e /two\n"), "build", "-")
	c.ok(t, d, []byte("FROM other\nRUN test -e /two\n"), "build", "-")
	// A registry that cannot be reached is asked only if the client wants to.
	c.ok(t, d, []byte("FROM scratch\nLABEL a=b\n"), "build", "-t", "127.0.0.1:1/local:1", "-")
	c.ok(t, d, []byte("FROM 127.0.0.1:1/local:1\n"), "build", "-")
	if r := c.run(t, d, []byte("FROM 127.0.0.1:1/local:1\n"), "build", "--pull", "-"); r.code != 1 {
		t.Errorf("--pull asks no registry:\n%s", r.all())
	}
}

func TestDockerBuildOutputs(t *testing.T) {
	c := sessionDocker(t)
	d := startDaemon(t)
	dockerfile := []byte("FROM scratch\nCOPY <<EOF /f\ntext\nEOF\n")
	dir := t.TempDir()
	c.ok(t, d, dockerfile, "build", "-o", "type=tar,dest="+filepath.Join(dir, "o.tar"), "-")
	if names := run(t, "tar", "tf", filepath.Join(dir, "o.tar")); strings.TrimSpace(names) != "f" {
		t.Errorf("the tar holds %q", names)
	}
	if r := c.ok(t, d, dockerfile, "build", "-o", "-", "-"); !strings.Contains(r.out, "text\n") {
		t.Errorf("stdout is no tar of the result: %q", r.out)
	}
	c.ok(t, d, dockerfile, "build", "-o", "type=cacheonly", "-t", "nobody", "-")
	if r := c.run(t, d, []byte("FROM nobody\n"), "build", "-"); r.code != 1 {
		t.Error("an output that keeps nothing made an image")
	}
	if r := c.run(t, d, dockerfile, "build", "-o", "type=bogus", "-"); r.code != 1 || !strings.Contains(r.errOut, `exporter "bogus" could not be found`) {
		t.Errorf("unknown output: exit %d\n%s", r.code, r.all())
	}
}

func TestDockerBuildFailures(t *testing.T) {
	c := sessionDocker(t)
	d := startDaemon(t)
	c.withBase(t, d)
	for _, test := range []struct{ dockerfile, want string }{
		{"FROM bb\nRUN echo before; exit 7\n", "exit code: 7"},
		{"FROM bb\nFROB\n", "unknown instruction: FROB"},
		{"FROM bb\nCOPY nope /\n", "/nope"},
		{"", "cannot be empty"},
		{"FROM 127.0.0.1:1/none\n", "127.0.0.1:1"},
	} {
		for _, flags := range [][]string{{"build", "--iidfile", filepath.Join(d.dir, "iid"), "-"}, {"build", "-q", "-"}} {
			r := c.run(t, d, []byte(test.dockerfile), flags...)
			if r.code != 1 || !strings.Contains(r.all(), test.want) {
				t.Errorf("%q %v: exit %d\n%s", test.dockerfile, flags, r.code, r.all())
			}
		}
	}
	if _, err := os.Stat(filepath.Join(d.dir, "iid")); err == nil {
		t.Error("a build that failed left an id")
	}
	if r := c.run(t, d, nil, "build", t.TempDir()); r.code != 1 || !strings.Contains(r.errOut, "Dockerfile") {
		t.Errorf("no Dockerfile: exit %d\n%s", r.code, r.all())
	}
	if r := c.run(t, d, []byte("FROM bb\nRUN true\n"), "build", "--network", "host", "-"); r.code != 1 || !strings.Contains(r.errOut, "network.host is not allowed") {
		t.Errorf("a network nobody granted: exit %d\n%s", r.code, r.all())
	}
	if r := c.run(t, d, []byte("FROM bb\n"), "build", "--squash", "-"); r.code != 1 || !strings.Contains(r.errOut, "experimental") {
		t.Errorf("--squash: exit %d\n%s", r.code, r.all())
	}
}

func TestDockerBuildSecretsAndSSH(t *testing.T) {
	c := sessionDocker(t)
	need(t, "ssh-keygen", "ssh-agent", "ssh-add")
	d := startDaemon(t)
	c.withBase(t, d)
	key := filepath.Join(t.TempDir(), "key")
	run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
	socket := startAgent(t, key)
	dir := write(t, map[string]string{
		"Dockerfile": "FROM bb\nRUN --mount=type=secret,id=tok,required=true wc -c < /run/secrets/tok > /length\n" +
			"RUN --mount=type=ssh,required=true test -S $SSH_AUTH_SOCK && echo yes > /agent\n",
		"token": "hunter2hunter2",
	})
	out := t.TempDir()
	r := c.ok(t, d, nil, "build", "--secret", "id=tok,src="+filepath.Join(dir, "token"), "--ssh", "default="+socket, "-o", out, dir)
	if strings.TrimSpace(read(t, out, "length")) != "14" || strings.TrimSpace(read(t, out, "agent")) != "yes" || strings.Contains(r.all(), "hunter2") {
		t.Errorf("length %q, agent %q\n%s", read(t, out, "length"), read(t, out, "agent"), r.all())
	}
	if r := c.run(t, d, nil, "build", "--no-cache", dir); r.code != 1 || !strings.Contains(r.errOut, "secret tok: not found") {
		t.Errorf("without its secret: exit %d\n%s", r.code, r.all())
	}
}

func TestDockerInterruptedLeavesNoProcess(t *testing.T) {
	c := sessionDocker(t)
	d := startDaemon(t)
	c.withBase(t, d)
	for i, signal := range []os.Signal{os.Interrupt, syscall.SIGKILL} {
		for j, context := range []string{"dockerfile", "tar"} {
			seconds := fmt.Sprint(27000 + 10*i + j)
			dockerfile := "FROM bb\nRUN sleep " + seconds + "\n"
			stdin := []byte(dockerfile)
			if context == "tar" {
				stdin = tarball(t, regular("Dockerfile", dockerfile))
			}
			cmd := c.command(t.Context(), d, "build", "--no-cache", "-")
			cmd.Stdin = bytes.NewReader(stdin)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			runs := func() bool { return len(processesNaming("sleep\x00"+seconds)) > 0 }
			waitFor(t, "the step to run", runs)
			_ = cmd.Process.Signal(signal)
			_ = cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); signal == os.Interrupt && code != 1 {
				t.Errorf("%v, %s: exit %d", signal, context, code)
			}
			waitFor(t, "the step to end", func() bool { return !runs() })
		}
	}
	c.ok(t, d, []byte("FROM bb\nRUN true\n"), "build", "-")
}

// Without BuildKit the client sends a tar and knows nothing of sessions. The daemon may build it with the whole engine all the same.
func TestDockerClassicBuilds(t *testing.T) {
	eachDocker(t, func(t *testing.T, c dockerCLI) {
		d := startDaemon(t)
		dir := write(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY f /\n", "f": "x"})
		classic := func(args ...string) result {
			cmd := c.command(t.Context(), d, args...)
			cmd.Env = append(cmd.Env, "DOCKER_BUILDKIT=0")
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			_ = cmd.Run()
			return result{code: cmd.ProcessState.ExitCode(), out: out.String()}
		}
		d.stop()
		config := filepath.Join(d.dir, "c.toml")
		if err := os.WriteFile(config, []byte("[slipway]\nengineForClassic = true\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		d.args = []string{"--config", config}
		d.start()
		if r := classic("build", "-t", "c:1", dir); r.code != 0 || !strings.Contains(r.out, "Successfully built ") || !strings.Contains(r.out, "Successfully tagged c:1") {
			t.Errorf("exit %d\n%s", r.code, r.out)
		}
	})
}

// The builder that clients choose by themselves is the configuration's, read again on SIGHUP.
func TestBuilderVersionIsReloaded(t *testing.T) {
	d := startDaemon(t)
	d.stop()
	config := filepath.Join(d.dir, "c.toml")
	set := func(text string) {
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set("[features]\nbuildkit = false\n")
	d.args = []string{"--config", config}
	d.start()
	ask := func() string {
		res, err := unixClient(d.socket).Get("http://docker/_ping")
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.Header.Get("Builder-Version")
	}
	if got := ask(); got != "1" {
		t.Errorf("Builder-Version %q", got)
	}
	set("[features]\nbuildkit = true\n")
	_ = d.cmd.Process.Signal(syscall.SIGHUP)
	waitFor(t, "the configuration to be read again", func() bool { return ask() == "2" })
	set("nonsense")
	_ = d.cmd.Process.Signal(syscall.SIGHUP)
	waitFor(t, "the daemon to complain", func() bool { return strings.Contains(d.logText(), "reload configuration") })
	if got := ask(); got != "2" {
		t.Errorf("Builder-Version %q after a configuration that cannot be read", got)
	}
}

// unixClient speaks HTTP on a socket, a connection for each request.
func unixClient(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialUnix(socket)}}
}

const dockerPy = `
import sys, docker
c = docker.DockerClient(base_url='unix://' + sys.argv[1])
image_lines = c.api.build(path=sys.argv[2], tag='py:1', decode=True, rm=True, buildargs={'A': 'given'}, labels={'l': 'v'})
last = ''
for l in image_lines:
    if 'error' in l: sys.exit('failed: ' + l['error'])
    last += l.get('stream', '')
print(last)
failed = [l for l in c.api.build(path=sys.argv[2], dockerfile='Bad', decode=True) if 'error' in l]
print('code', failed[0]['errorDetail']['code'])
print('pruned', c.api.prune_builds()['SpaceReclaimed'] >= 0)
`

// Libraries that know of no session build with the whole engine.
func TestDockerPy(t *testing.T) {
	need(t, "python3")
	if out, err := exec.Command("python3", "-c", "import docker").CombinedOutput(); err != nil {
		t.Skipf("needs python3-docker: %s", out)
	}
	config := filepath.Join(t.TempDir(), "c.toml")
	if err := os.WriteFile(config, []byte("[slipway]\nengineForClassic = true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, "--config", config)
	dir := dirWithBusybox(t, map[string]string{
		"Dockerfile": "FROM scratch\nARG A\nCOPY busybox /bin/sh\nRUN --mount=type=cache,target=/c echo it is $A\n",
		"Bad":        "FROM scratch\nCOPY busybox /bin/sh\nRUN exit 7\n",
	})
	out, err := exec.Command("python3", "-c", dockerPy, d.socket, dir).CombinedOutput()
	for _, want := range []string{"it is given", "Successfully built ", "Successfully tagged py:1", "code 7", "pruned True"} {
		if err != nil || !strings.Contains(string(out), want) {
			t.Fatalf("%v: want %q in\n%s\nthe daemon's log:\n%s", err, want, out, d.logText())
		}
	}
}

func dialUnix(socket string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", socket)
	}
}

// Newer clients build through buildx, which comes by POST /grpc and POST /session of the same socket.
func TestNewDockerBuildsThroughBuildx(t *testing.T) {
	var c dockerCLI
	for _, one := range dockerCLIs() {
		if one.major >= 23 {
			c = one
		}
	}
	if c.path == "" {
		t.Skip("needs a docker client of version 23 or newer in /usr/bin or /usr/local/bin")
	}
	if os.Getenv("SLIPWAY_E2E_TOOLS") != "1" {
		t.Skip("needs buildx, which takes minutes to build the first time: set SLIPWAY_E2E_TOOLS=1")
	}
	plugin := toolOf(t, "../tools/buildx", "github.com/docker/buildx/cmd/buildx")
	d := startDaemon(t)
	plugins := filepath.Join(d.dir, "docker", "cli-plugins")
	if err := os.MkdirAll(plugins, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(plugin, filepath.Join(plugins, "docker-buildx")); err != nil {
		t.Fatal(err)
	}
	dir := write(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY f /\n", "f": "text"})
	run := func(stdin []byte, args ...string) result {
		t.Helper()
		cmd := c.command(t.Context(), d, args...)
		cmd.Env = append(cmd.Env, "DOCKER_BUILDKIT=1")
		cmd.Stdin = bytes.NewReader(stdin)
		var out, errOut bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errOut
		_ = cmd.Run()
		return result{code: cmd.ProcessState.ExitCode(), out: out.String(), errOut: errOut.String()}
	}
	out := t.TempDir()
	for name, r := range map[string]result{
		"image":        run(nil, "build", "-t", "x:1", dir),
		"directory":    run(nil, "build", "-o", out, dir),
		"tar on stdin": run(tarball(t, regular("Dockerfile", "FROM scratch\nCOPY f /\n"), regular("f", "x")), "build", "-"),
		"its image":    run([]byte("FROM x:1\nLABEL a=b\n"), "build", "-"),
		"prune":        run(nil, "builder", "prune", "-af"),
	} {
		if r.code != 0 {
			t.Errorf("%s: exit %d\n%s\nthe daemon's log:\n%s", name, r.code, r.all(), d.logText())
		}
	}
	if got := read(t, out, "f"); got != "text" {
		t.Errorf("the output holds %q", got)
	}
	if r := run([]byte("FROM scratch\nFROB\n"), "build", "-"); r.code == 0 || !strings.Contains(r.errOut, ">>> FROB") {
		t.Errorf("a mistake in the Dockerfile: exit %d\n%s", r.code, r.all())
	}
}
