package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	bkclient "github.com/moby/buildkit/client"
	"github.com/slipwaybuild/slipway/solver/layers"
)

// authority signs certificates for one test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.issue("ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// issue writes NAME.crt and NAME.key.
func (a *authority) issue(name string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<60))
	template.SerialNumber, template.Subject = serial, pkix.Name{CommonName: name}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{
		a.path(name + ".crt"): {Type: "CERTIFICATE", Bytes: der}, a.path(name + ".key"): {Type: "PRIVATE KEY", Bytes: pkcs8},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return cert, key
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) server(name string) {
	a.issue(name, &x509.Certificate{DNSNames: []string{"daemon.test"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
}

func (a *authority) client(name string) {
	a.issue(name, &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
}

// freeAddr is a tcp address that was free a moment ago.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// reaches asks a daemon for its workers.
func reaches(t *testing.T, addr string, opts ...bkclient.ClientOpt) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := bkclient.New(ctx, addr, opts...)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.ListWorkers(ctx)
	return err
}

func TestTCPWithCertificates(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	a.server("daemon")
	a.client("client")
	other.client("client")
	addr := freeAddr(t)
	d := startDaemon(t, "--addr", "tcp://"+addr, "--tlscert", a.path("daemon.crt"), "--tlskey", a.path("daemon.key"), "--tlscacert", a.path("ca.crt"))
	with := func(by *authority) []bkclient.ClientOpt {
		return []bkclient.ClientOpt{
			bkclient.WithServerConfig("daemon.test", a.path("ca.crt")), bkclient.WithCredentials(by.path("client.crt"), by.path("client.key")),
		}
	}
	if err := reaches(t, "tcp://"+addr, with(a)...); err != nil {
		t.Errorf("a client with a certificate: %v", err)
	}
	if err := reaches(t, "unix://"+d.socket); err != nil {
		t.Errorf("the unix socket beside it: %v", err)
	}
	for what, opts := range map[string][]bkclient.ClientOpt{
		"a client with another's certificate": with(other),
		"a client without certificate":        {bkclient.WithServerConfig("daemon.test", a.path("ca.crt"))},
		"a client without TLS":                nil,
	} {
		if err := reaches(t, "tcp://"+addr, opts...); err == nil {
			t.Errorf("%s was served", what)
		}
	}
	// A new CA of clients is taken over by SIGHUP, with connections to the unix socket going on.
	b, err := os.ReadFile(other.path("ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.path("ca-of-clients"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	ca, _ := os.ReadFile(a.path("ca.crt"))
	if err := os.WriteFile(a.path("ca.crt"), append(ca, b...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the new CA to be used", func() bool { return reaches(t, "tcp://"+addr, with(other)...) == nil })
}

func TestPlainTCPAndDockersAPI(t *testing.T) {
	addr := freeAddr(t)
	d := startDaemon(t, "--addr", "tcp://"+addr)
	if err := reaches(t, "tcp://"+addr); err != nil {
		t.Error(err)
	}
	res, err := http.Get("http://" + addr + "/_ping")
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("ping: %s", res.Status)
	}
	if !strings.Contains(d.logText(), "have clients show certificates") {
		t.Error("an address open to all is not warned of")
	}
}

func TestSocketOfTheServiceManager(t *testing.T) {
	need(t, "runc")
	dir := shortTemp(t)
	socket := filepath.Join(dir, "s.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "n"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	// The number of its process is known only to the program itself: a shell tells it and becomes the daemon.
	cmd := exec.Command("sh", "-c", `export LISTEN_FDS=1 LISTEN_PID=$$; exec "$0" "$@"`,
		filepath.Join(binaries, "slipwayd"), "--addr", "fd://", "--root", filepath.Join(dir, "root"))
	cmd.ExtraFiles = []*os.File{f}
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(dir, "n"))
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := func() string {
		t.Helper()
		b := make([]byte, 100)
		_ = notify.SetReadDeadline(time.Now().Add(30 * time.Second))
		n, err := notify.Read(b)
		if err != nil {
			t.Fatalf("%v\n%s", err, log.String())
		}
		return string(b[:n])
	}
	if got := said(); got != "READY=1" {
		t.Errorf("told %q", got)
	}
	if err := reaches(t, "unix://"+socket); err != nil {
		t.Error(err)
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if got := said(); got != "STOPPING=1" {
		t.Errorf("told %q", got)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, log.String())
	}
	if _, err := os.Stat(socket); err != nil {
		t.Error("the socket of the service manager is gone")
	}
}

// TestArgumentsOfBuildKitsTests starts the daemon as BuildKit's own tests start buildkitd (util/testutil/workers).
func TestArgumentsOfBuildKitsTests(t *testing.T) {
	need(t, "runc", "busybox")
	dir := shortTemp(t)
	config := configFile(t, `
insecure-entitlements = ["network.host", "security.insecure"]

[registry."docker.io"]
  mirrors = ["localhost:1"]

[otel]
  socketPath = "`+filepath.Join(dir, "otel-grpc.sock")+`"

[cdi]
  specDirs = ["`+t.TempDir()+`"]

[frontend."gateway.v0"]
  enabled = true
  allowedRepositories = []

[history]
  maxEntries = 2
`)
	debugSocket := filepath.Join(dir, "debug.sock")
	d := &daemon{t: t, dir: dir, socket: filepath.Join(dir, "buildkitd.sock"), root: filepath.Join(dir, "root")}
	d.args = []string{
		"--oci-worker=true", "--containerd-worker=false", "--oci-worker-gc=false", "--oci-worker-labels=org.mobyproject.buildkit.worker.sandbox=true",
		"--oci-worker-snapshotter=native", "--config=" + config, "--debug",
	}
	d.env = append(os.Environ(), "BUILDKIT_DEBUG_EXEC_OUTPUT=1", "BUILDKIT_DEBUG_PANIC_ON_ERROR=1", "BUILDKITD_DEBUGADDR=unix://"+debugSocket)
	d.start()
	t.Cleanup(func() {
		d.stop()
		d.checkNothingLeft()
	})
	w := d.worker()
	if w.Labels["org.mobyproject.buildkit.worker.sandbox"] != "true" || len(w.GCPolicy) != 0 {
		t.Errorf("%+v", w)
	}
	d.build(busyboxContext(t), "-o", "type=cacheonly", write(t, map[string]string{"Dockerfile": base + "RUN true\n"}))
	get := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", debugSocket)
	}}}
	for path, want := range map[string]string{
		"/metrics": `slipway_builds_total{result="success"} 1`, "/debug/pprof/goroutine?debug=1": "goroutine profile", "/debug/vars": "memstats",
	} {
		res, err := get.Get("http://debug" + path)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if !strings.Contains(string(b), want) {
			t.Errorf("%s does not say %q", path, want)
		}
	}
}

func TestRulesOfCollecting(t *testing.T) {
	d := startDaemon(t, "--config", configFile(t, `
[[worker.oci.gcpolicy]]
filters = ["type==exec.cachemount"]
maxUsedSpace = 1
[[worker.oci.gcpolicy]]
all = true
keepDuration = "1000h"
reservedSpace = "1GB"
`))
	policy := d.worker().GCPolicy
	if len(policy) != 2 || policy[0].MaxUsedSpace != 1 || policy[0].Filter[0] != "type==exec.cachemount" || !policy[1].All ||
		policy[1].KeepDuration != 1000*time.Hour || policy[1].ReservedSpace != 1<<30 {
		t.Errorf("clients are told %+v", policy)
	}
	d.build(busyboxContext(t), "-o", "type=cacheonly", write(t, map[string]string{
		"Dockerfile": base + "RUN --mount=type=cache,target=/c head -c 100000 /dev/zero > /c/much; echo kept > /kept\n",
	}))
	uses := func(use layers.Use) (n int) {
		list, err := d.client(t).DiskUsage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range list {
			if string(u.RecordType) == string(use) {
				n++
			}
		}
		return n
	}
	waitFor(t, "the cache mount to be collected", func() bool { return uses(layers.UseCacheMount) == 0 })
	if uses(layers.UseRegular) == 0 {
		t.Error("what the rules spare was collected too")
	}
}

func TestWhatIsWrongIsToldAtTheStart(t *testing.T) {
	need(t, "runc")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--oci-worker=maybe"}, "none of true, false, auto"},
		{[]string{"--oci-worker=false"}, "only worker"},
		{[]string{"--containerd-worker=true"}, "not by containerd"},
		{[]string{"--addr", "npipe:////./pipe/x"}, "named pipes"},
		{[]string{"--addr", "fd://"}, "no such socket was passed"},
		{[]string{"--tlscert", "/nowhere"}, "go together"},
		{[]string{"--tlscert", "/nowhere", "--tlskey", "/nowhere"}, "load certificate"},
		{[]string{"--allow-insecure-entitlement", "everything"}, "none of network.host"},
		{[]string{"--oci-worker-labels", "x"}, "name=value"},
		{[]string{"--oci-worker-gc-keepstorage", "1,2,3,4"}, "three parts"},
		{[]string{"--group", "no-such-group-here"}, "group of the sockets"},
		{[]string{"--config", "/nowhere"}, "/nowhere"},
	} {
		dir := shortTemp(t)
		args := append([]string{"--root", filepath.Join(dir, "root"), "--addr", "unix://" + filepath.Join(dir, "s")}, c.args...)
		out, err := exec.Command(filepath.Join(binaries, "slipwayd"), args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), c.want) {
			t.Errorf("%v: got %v, %s, want %q", c.args, err, out, c.want)
		}
	}
}

func TestUnknownKeysAreWarnedOf(t *testing.T) {
	d := startDaemon(t, "--config", configFile(t, "[worker.oci]\nmaxUsedSpac = 1\n[compaction]\nenabled = true\n"))
	for _, want := range []string{"did you mean worker.oci.maxUsedSpace?", "compaction has no meaning here"} {
		if !strings.Contains(d.logText(), want) {
			t.Errorf("the log does not say %q:\n%s", want, d.logText())
		}
	}
}
