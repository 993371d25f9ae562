package e2e

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	buildkitsession "github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
)

// hostPrograms is the flag that gives a build programs of this host as the context "tools", with the libraries that they need.
func hostPrograms(t *testing.T, programs ...string) string {
	t.Helper()
	need(t, append(programs, "ldd", "cp")...)
	dir := t.TempDir()
	files := map[string]bool{}
	for _, p := range programs {
		path, err := exec.LookPath(p)
		if err != nil {
			t.Fatal(err)
		}
		files[path] = true
		for _, m := range regexp.MustCompile(`(/\S+) \(0x`).FindAllStringSubmatch(run(t, "ldd", path), -1) {
			files[m[1]] = true
		}
	}
	for f := range files {
		to := filepath.Join(dir, strings.TrimPrefix(f, "/"))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		run(t, "cp", "-L", f, to)
	}
	return "--build-context=tools=" + dir
}

// allowHostNetwork is a daemon whose steps may reach what listens on this host.
func allowHostNetwork(t *testing.T) *daemon {
	t.Helper()
	config := filepath.Join(t.TempDir(), "c.toml")
	if err := os.WriteFile(config, []byte("insecure-entitlements = [\"network.host\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return startDaemon(t, "--config", config)
}

func agentKeys(t *testing.T, socket string) string {
	t.Helper()
	return run(t, "sh", "-c", "SSH_AUTH_SOCK="+socket+" ssh-add -l")
}

// A step clones over ssh with the user's agent, as root and as another, and can do nothing to the agent but use it.
func TestGitCloneInAStepOverSSH(t *testing.T) {
	need(t, "git", "ssh-keyscan")
	host, socket := sshServer(t)
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		t.Fatal(err)
	}
	bare := gitRepository(t, t.TempDir(), "r.git")
	d := allowHostNetwork(t)
	dir := write(t, map[string]string{"known_hosts": run(t, "sh", "-c", "ssh-keyscan -p "+port+" "+name+" 2>/dev/null"), "Dockerfile": base + `COPY --from=tools / /
COPY known_hosts /known_hosts
RUN mkdir -p /root /home/dev /tmp && chmod 1777 /tmp && chown 1234:567 /home/dev && printf 'root:x:0:0::/root:/bin/sh\ndev:x:1234:567::/home/dev:/bin/sh\n' > /etc/passwd && ssh-keygen -q -t ed25519 -N "" -f /mine
ENV GIT_SSH_COMMAND="ssh -o UserKnownHostsFile=/known_hosts -o BatchMode=yes" GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=*
RUN --network=host --mount=type=ssh git clone -q ssh://root@` + host + bare + ` /root/src && git -C /root/src show v1:version > /cloned
USER dev
RUN --network=host --mount=type=ssh,uid=1234,gid=567,mode=0600 git clone -q ssh://root@` + host + bare + ` ~/src && git -C ~/src show v1:version > ~/cloned
RUN --network=host --mount=type=ssh ssh-add -l > ~/refused 2>&1 || true
USER root
RUN --network=host if git clone -q ssh://root@` + host + bare + ` /root/none; then echo got in; fi > /without 2>/dev/null
RUN printf '#!/bin/sh\necho word\n' > /word && chmod +x /word
RUN --mount=type=ssh export SSH_ASKPASS=/word SSH_ASKPASS_REQUIRE=force DISPLAY=x; \
  for what in -D -x -X "-d /mine.pub" /mine "-t 60 /mine" "-c /mine" "-s /lib/x.so" "-e /lib/x.so"; do ssh-add $what && echo "ssh-add $what was let through" >> /tampered; done; ssh-add -l > /keys; ssh-add -T /key.pub 2>/dev/null; true
`})
	out := t.TempDir()
	args := []string{busyboxContext(t), hostPrograms(t, "git", "ssh", "ssh-add", "ssh-keygen"), "--allow", "network.host", "--ssh", "default=" + socket, "-o", out, dir}
	before := agentKeys(t, socket)
	d.build(args...)
	for file, want := range map[string]string{"cloned": "first", "home/dev/cloned": "first", "without": ""} {
		if got := read(t, out, file); got != want {
			t.Errorf("%s: %q", file, got)
		}
	}
	if got := read(t, out, "home/dev/refused"); !strings.Contains(got, "ermission denied") {
		t.Errorf("a socket of root's was open to another user: %q", got)
	}
	if got := read(t, out, "keys"); !strings.Contains(got, "e2e user") {
		t.Errorf("the step's list of keys: %q", got)
	}
	if _, err := os.Stat(filepath.Join(out, "tampered")); err == nil {
		t.Error(read(t, out, "tampered"))
	}
	if after := agentKeys(t, socket); after != before {
		t.Errorf("the agent had %q and has %q", before, after)
	}
	for _, name := range list(t, out) {
		if strings.HasPrefix(name, "run/buildkit") || strings.Contains(name, "ssh_agent") {
			t.Errorf("%s is left of a socket", name)
		}
	}
}

// Several agents in a build, each under its id; one is not an agent at all.
func TestSeveralAgentsAndRawSockets(t *testing.T) {
	dir := shortTemp(t)
	for _, name := range []string{"one", "two", "three"} {
		run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "key "+name, "-f", filepath.Join(dir, name))
	}
	l, err := net.Listen("unix", filepath.Join(dir, "raw"))
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("raw " + r.URL.Path)) })}
	go func() { _ = web.Serve(l) }()
	t.Cleanup(func() { _ = web.Close() })
	d := startDaemon(t)
	out := t.TempDir()
	d.build(busyboxContext(t), hostPrograms(t, "ssh-add", "curl"),
		"--ssh", "default="+startAgent(t, filepath.Join(dir, "one")), "--ssh", "files="+filepath.Join(dir, "two")+","+filepath.Join(dir, "three"), "--ssh", "web="+filepath.Join(dir, "raw")+",raw=true",
		"-o", out, dockerfile(t, `COPY --from=tools / /
RUN --mount=type=ssh ssh-add -L | cut -d' ' -f3- > /default
RUN --mount=type=ssh,id=files ssh-add -L | cut -d' ' -f3- > /files
RUN --mount=type=ssh,id=files,target=/a --mount=type=ssh,id=default,target=/b echo $SSH_AUTH_SOCK > /first; SSH_AUTH_SOCK=/b ssh-add -L | wc -l > /second
RUN --mount=type=ssh,id=web curl -s --unix-socket $SSH_AUTH_SOCK http://any/thing > /web
RUN --mount=type=ssh,id=web,target=/tmp/web.sock,mode=0666 stat -c '%F %a' /tmp/web.sock > /kind
RUN --mount=type=ssh,id=other test ! -e /run/buildkit/ssh_agent.0 && echo none > /other
`))
	for file, want := range map[string]string{
		"default": "key one\n", "first": "/a\n", "second": "1\n", "web": "raw /thing", "kind": "socket 666\n", "other": "none\n",
		"files": filepath.Join(dir, "two") + "\n" + filepath.Join(dir, "three") + "\n",
	} {
		if got := read(t, out, file); got != want {
			t.Errorf("%s: %q, want %q", file, got, want)
		}
	}
	d.fail("RUN --mount=type=ssh,id=other,required=true true\n", []string{`no SSH key "other" forwarded from the client`}, busyboxContext(t), "--ssh", "files="+filepath.Join(dir, "two"))
}

// What is wrong with an agent is said before anything is built.
func TestAgentsAreLookedAtBeforeTheBuild(t *testing.T) {
	d := startDaemon(t)
	dir := shortTemp(t)
	run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, "key"))
	run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "geheim", "-f", filepath.Join(dir, "locked"))
	empty, locked := startAgent(t, filepath.Join(dir, "key")), startAgent(t, filepath.Join(dir, "key"))
	run(t, "sh", "-c", "SSH_AUTH_SOCK="+empty+" ssh-add -q -D")
	if err := os.WriteFile(filepath.Join(dir, "word"), []byte("#!/bin/sh\necho word\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "sh", "-c", "SSH_ASKPASS="+dir+"/word SSH_ASKPASS_REQUIRE=force SSH_AUTH_SOCK="+locked+" ssh-add -x </dev/null")
	l, err := net.Listen("unix", filepath.Join(dir, "gone"))
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
	t.Setenv("SSH_AUTH_SOCK", "")
	src := write(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	for flag, want := range map[string]string{
		"default":                               "make sure SSH_AUTH_SOCK is set",
		"default=" + empty:                      empty + ": the agent has no keys",
		"default=" + locked:                     locked + ": the agent has no keys: add one (ssh-add), or unlock it (ssh-add -X)",
		"mine=" + filepath.Join(dir, "gone"):    `ssh forward "mine": dial unix ` + filepath.Join(dir, "gone") + ": connect: connection refused",
		"mine=" + filepath.Join(dir, "absent"):  "absent: no such file",
		"mine=" + filepath.Join(dir, "locked"):  "the key has a passphrase",
		"mine=" + filepath.Join(dir, "key.pub"): "failed to parse",
	} {
		r := d.run("build", "--progress", "plain", "--ssh", flag, "-o", "type=cacheonly", src)
		if r.code == 0 || !strings.Contains(r.errOut, want) || strings.Contains(r.errOut, "#1 ") {
			t.Errorf("--ssh %s: exit %d, want %q:\n%s", flag, r.code, want, r.errOut)
		}
	}
}

// A git source goes only to the host whose key is known.
func TestKnownHostsOfGitSources(t *testing.T) {
	need(t, "git", "ssh-keyscan")
	host, socket := sshServer(t)
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		t.Fatal(err)
	}
	bare := gitRepository(t, t.TempDir(), "r.git")
	d := startDaemon(t)
	right := run(t, "sh", "-c", "ssh-keyscan -p "+port+" "+name+" 2>/dev/null")
	dir := t.TempDir()
	run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, "other"))
	wrong := "[" + name + "]:" + port + " " + strings.Join(strings.Fields(read(t, dir, "other.pub"))[:2], " ") + "\n"
	agents, err := sshprovider.NewSSHAgentProvider([]sshprovider.AgentConfig{{ID: "default", Paths: []string{socket}}, {ID: "deploy", Paths: []string{socket}}})
	if err != nil {
		t.Fatal(err)
	}
	opt := client.SolveOpt{Session: []buildkitsession.Attachable{agents}}
	url := "ssh://root@" + host + bare
	out := solve(t, d.client(t), llb.Git(url, "v1", llb.KnownSSHHosts(right)), opt)
	if got := read(t, out, "version"); got != "first" {
		t.Errorf("got %q", got)
	}
	out = solve(t, d.client(t), llb.Git(url, "topic", llb.KnownSSHHosts(right), llb.MountSSHSock("deploy")), opt)
	if len(list(t, out)) == 0 {
		t.Error("nothing by another agent")
	}
	for what, known := range map[string]string{"another key": wrong, "no key of it": "elsewhere.invalid " + strings.Join(strings.Fields(wrong)[1:], " ") + "\n"} {
		if _, err := trySolve(t, d.client(t), llb.Git(url, "v1", llb.KnownSSHHosts(known), llb.KeepGitDir()), opt); err == nil || !strings.Contains(err.Error(), "Host key verification failed") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
