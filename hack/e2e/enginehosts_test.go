package e2e

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// certificates writes ca.pem, cert.pem and key.pem of a server and of a client.
func certificates(t *testing.T) (server, client string) {
	t.Helper()
	a := newAuthority(t)
	a.issue("server", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	a.client("client")
	files := func(name string) string {
		dir := t.TempDir()
		for to, from := range map[string]string{"ca.pem": "ca.crt", "cert.pem": name + ".crt", "key.pem": name + ".key"} {
			if err := os.WriteFile(filepath.Join(dir, to), []byte(read(t, a.path(from))), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	return files("server"), files("client")
}

// with is the same daemon, reached otherwise.
func (e *engine) with(env []string, args ...string) *engine {
	other := *e
	other.env, other.args = env, args
	return &other
}

func TestEngineClientHosts(t *testing.T) {
	server, client := certificates(t)
	addr := freeAddr(t)
	e := startDockerd(t, "-H", "tcp://"+addr, "--tlsverify", "--tlscacert", filepath.Join(server, "ca.pem"),
		"--tlscert", filepath.Join(server, "cert.pem"), "--tlskey", filepath.Join(server, "key.pem"))
	config := t.TempDir()
	dockerContext(t, config, "local", e.host, "")
	dockerContext(t, config, "secure", "tcp://"+addr, client)
	dir := write(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY f /\n", "f": "text"})
	for name, by := range map[string]*engine{
		"--host":                    e.with(nil, "--host", e.host),
		"-H beside an environment":  e.with([]string{"DOCKER_HOST=unix:///nonexistent", "SLIPWAY_HOST=unix:///nonexistent"}, "-H", e.host),
		"--context":                 e.with([]string{"DOCKER_CONFIG=" + config}, "--context", "local"),
		"DOCKER_CONTEXT":            e.with([]string{"DOCKER_CONFIG=" + config, "DOCKER_CONTEXT=local"}),
		"TLS":                       e.with([]string{"DOCKER_HOST=tcp://" + addr, "DOCKER_TLS_VERIFY=1", "DOCKER_CERT_PATH=" + client}),
		"TLS of a context":          e.with([]string{"DOCKER_CONFIG=" + config}, "--context", "secure"),
		"TLS that checks no server": e.with([]string{"DOCKER_HOST=tcp://" + addr, "DOCKER_TLS=1", "DOCKER_CERT_PATH=" + client}),
	} {
		t.Run(name, func(t *testing.T) {
			out := t.TempDir()
			by.on(t).build(nil, "-o", out, dir)
			if got := read(t, out, "f"); got != "text" {
				t.Errorf("got %q", got)
			}
		})
	}
	empty := t.TempDir()
	for want, by := range map[string]*engine{
		"certificate": e.with([]string{"DOCKER_HOST=tcp://" + addr, "DOCKER_TLS_VERIFY=1", "DOCKER_CERT_PATH=" + empty}),
		"HTTPS":       e.with([]string{"DOCKER_HOST=tcp://" + addr}),
	} {
		by.fails(1, want, nil, dir)
	}
	e.with([]string{"DOCKER_CONFIG=" + config}, "--context", "nope").fails(125, `docker context "nope": context not found`, nil, dir)
	e.with(nil, "--host", e.host, "--addr", e.host).fails(125, "only one of --addr, --host and --context", nil, dir)
	e.with([]string{"DOCKER_HOST=ftp://h"}).fails(125, "by unix://, tcp:// or ssh://", nil, dir)
}

// dockerContext writes a context as docker does.
func dockerContext(t *testing.T, config, name, host, certs string) {
	t.Helper()
	id := fmt.Sprintf("%x", sha256.Sum256([]byte(name)))
	meta := filepath.Join(config, "contexts", "meta", id)
	if err := os.MkdirAll(meta, 0o700); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`{"Name":%q,"Metadata":{},"Endpoints":{"docker":{"Host":%q,"SkipTLSVerify":false}}}`, name, host)
	if err := os.WriteFile(filepath.Join(meta, "meta.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if certs != "" {
		tls := filepath.Join(config, "contexts", "tls", id, "docker")
		if err := os.CopyFS(tls, os.DirFS(certs)); err != nil {
			t.Fatal(err)
		}
	}
}

// slipwayd is chosen by its own address, whatever docker's variables say.
func TestSlipwayHostCountsMoreThanDockerHost(t *testing.T) {
	d := startDaemon(t)
	dir := write(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY f /\n", "f": "text"})
	e := newEngine(t, "slipwayd", "", d.logText)
	for _, by := range []*engine{
		e.with([]string{"DOCKER_HOST=unix:///nonexistent", "SLIPWAY_HOST=unix://" + d.socket}),
		e.with([]string{"DOCKER_HOST=unix:///nonexistent"}, "--addr", "unix://"+d.socket),
	} {
		if r := by.run(nil, "build", "-o", t.TempDir(), dir); r.code != 0 {
			t.Errorf("exit %d\n%s", r.code, r.all())
		}
	}
}

func TestEngineClientOverSSH(t *testing.T) {
	need(t, "docker", "ssh")
	host, agent := sshServer(t)
	home := t.TempDir()
	// ssh takes its settings from the user's home as the system knows it, so they come by a program that stands before it.
	bin := t.TempDir()
	real := strings.TrimSpace(run(t, "sh", "-c", "command -v ssh"))
	script := "#!/bin/sh\nexec " + real + " -F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=" + filepath.Join(home, "known") + " \"$@\"\n"
	if err := os.WriteFile(filepath.Join(bin, "ssh"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	env := func(host string) []string {
		return []string{"DOCKER_HOST=" + host, "SSH_AUTH_SOCK=" + agent, "PATH=" + bin + ":" + os.Getenv("PATH")}
	}
	e := startDockerd(t)
	path := strings.TrimPrefix(e.host, "unix://")
	over := e.with(env("ssh://root@" + host + path))
	dir := write(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY f /\n", "f": "text"})
	out := t.TempDir()
	over.build(nil, "-o", out, dir)
	over.build(tarball(t, regular("Dockerfile", "FROM scratch\nCOPY g /\n"), regular("g", "piped")), "-o", out, "-")
	if got := read(t, out, "f") + read(t, out, "g"); got != "textpiped" {
		t.Errorf("got %q", got)
	}
	e.with(env("ssh://root@"+host+"/nonexistent")).fails(1, "/nonexistent", nil, dir)
	if left := processesNaming("system dial-stdio"); len(left) > 0 {
		waitFor(t, "ssh to end", func() bool { return len(processesNaming(path)) <= 1 })
	}
}
