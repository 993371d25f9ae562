package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/buildid"
	"github.com/moby/buildkit/client/llb"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/identity"
	buildkitsession "github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/filesync"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

// strangerID is a user that nothing belongs to.
const strangerID = 65534

// as runs slipway as another user.
func (d *daemon) as(t *testing.T, uid uint32, args ...string) result {
	t.Helper()
	// What a stranger may run must be where a stranger can reach it.
	dir := shortTemp(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	copyFile(t, filepath.Join(binaries, "slipway"), filepath.Join(dir, "slipway"))
	cmd := exec.Command(filepath.Join(dir, "slipway"), append([]string{"--addr", "unix://" + d.socket}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	cmd.Env, cmd.Dir = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}, "/"
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

// openToAll lets every user of the host connect.
func (d *daemon) openToAll(t *testing.T) {
	t.Helper()
	if err := errors.Join(os.Chmod(d.dir, 0o755), os.Chmod(d.socket, 0o666)); err != nil {
		t.Fatal(err)
	}
}

func TestBuildsBelongToTheirUsers(t *testing.T) {
	detachedLogs(t)
	d := startDaemon(t)
	d.openToAll(t)
	bb := busyboxContext(t)
	running := func() bool { return len(processesNaming("sleep\x0017320")) > 0 }
	id := d.detach(bb, "-o", "type=cacheonly", write(t, map[string]string{"Dockerfile": base + "RUN sleep 17320\n"}))
	waitFor(t, "the step to run", running)
	if r := d.as(t, strangerID, "ls"); r.code != 0 || !strings.Contains(r.out, id[:12]) {
		t.Errorf("a stranger lists builds: exit %d\n%s", r.code, r.all())
	}
	if r := d.as(t, strangerID, "cancel", id); r.code != 1 || !strings.Contains(r.errOut, "another client's") {
		t.Errorf("a stranger cancels: exit %d\n%s", r.code, r.all())
	}
	if !running() {
		t.Error("the stranger ended the build")
	}
	if r := d.run("cancel", id); r.code != 0 {
		t.Errorf("its owner cancels: exit %d\n%s", r.code, r.all())
	}
	waitFor(t, "the step to end", func() bool { return !running() })
}

// TestAnothersSessionIsOfNoUse has one client name another's session and build, whose ids have become known. Clients are those of
// certificates.
func TestAnothersSessionIsOfNoUse(t *testing.T) {
	a := newAuthority(t)
	a.server("daemon")
	addr := freeAddr(t)
	startDaemon(t, "--addr", "tcp://"+addr, "--tlscert", a.path("daemon.crt"), "--tlskey", a.path("daemon.key"), "--tlscacert", a.path("ca.crt"))
	clients := map[string]*client.Client{}
	for _, name := range []string{"ann", "bob"} {
		a.client(name)
		c, err := client.New(t.Context(), "tcp://"+addr, client.WithServerConfig("daemon.test", a.path("ca.crt")), client.WithCredentials(a.path(name+".crt"), a.path(name+".key")))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		clients[name] = c
	}
	s, err := buildkitsession.NewSession(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	files := mount(t, write(t, map[string]string{"private": "ann's"}))
	s.Allow(filesync.NewFSSyncProvider(filesync.StaticDirSource{"files": files}))
	ran := make(chan error, 1)
	go func() { ran <- s.Run(context.WithoutCancel(t.Context()), clients["ann"].Dialer()) }()
	defer func() {
		_ = s.Close()
		<-ran
	}()
	def, err := llb.Local("files", llb.SessionID(s.ID())).Marshal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	solve := func(name, session string) error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := clients[name].ControlClient().Solve(ctx, &controlapi.SolveRequest{Ref: identity.NewID(), Session: session, Definition: def.ToPB()})
		return err
	}
	for what, session := range map[string]string{"as the build's": s.ID(), "in the definition alone": ""} {
		if err := solve("bob", session); err == nil || !strings.Contains(err.Error(), "no active session") {
			t.Errorf("another's session, named %s: %v", what, err)
		}
	}
	if err := solve("ann", s.ID()); err != nil {
		t.Errorf("one's own session: %v", err)
	}

	driving, stop := make(chan error, 1), make(chan struct{})
	ref := identity.NewID()
	go func() {
		_, err := clients["ann"].Build(context.WithoutCancel(t.Context()), client.SolveOpt{Ref: ref}, "test", func(context.Context, gateway.Client) (*gateway.Result, error) {
			<-stop
			return gateway.NewResult(), nil
		}, nil)
		driving <- err
	}()
	ping := func(name string) error {
		conn, err := tlsConn(a, addr, name)
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = gwpb.NewLLBBridgeClient(conn).Ping(buildid.AppendToOutgoingContext(t.Context(), ref), &gwpb.PingRequest{})
		return err
	}
	if err := ping("ann"); err != nil {
		t.Errorf("a build of one's own is driven from another connection: %v", err)
	}
	if err := ping("bob"); status.Code(err) != codes.NotFound {
		t.Errorf("another's build is driven: %v", err)
	}
	close(stop)
	if err := <-driving; err != nil {
		t.Errorf("the build of its owner: %v", err)
	}
}

// tlsConn is a connection for gRPC as the client of a certificate.
func tlsConn(a *authority, addr, name string) (*grpc.ClientConn, error) {
	pair, err := tls.LoadX509KeyPair(a.path(name+".crt"), a.path(name+".key"))
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(a.path("ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return grpc.NewClient(addr, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair}, RootCAs: roots, ServerName: "daemon.test", MinVersion: tls.VersionTLS12,
	})))
}

// dockerCerts lays a client's certificate out as docker does.
func (a *authority) dockerCerts(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	for from, to := range map[string]string{"ca.crt": "ca.pem", name + ".crt": "cert.pem", name + ".key": "key.pem"} {
		copyFile(t, a.path(from), filepath.Join(dir, to))
	}
	return dir
}

// TestOverTCPWithCertificates is slipway's own way to a daemon elsewhere, over a network that breaks.
func TestOverTCPWithCertificates(t *testing.T) {
	detachedLogs(t)
	a := newAuthority(t)
	a.server("daemon")
	a.client("ann")
	a.client("bob")
	addr := freeAddr(t)
	startDaemon(t, "--addr", "tcp://"+addr, "--tlscert", a.path("daemon.crt"), "--tlskey", a.path("daemon.key"), "--tlscacert", a.path("ca.crt"))
	bb := busyboxContext(t)
	n := behindBadTCP(t, addr)
	as := func(name string, args ...string) result {
		t.Helper()
		at := fmt.Sprintf("tcp://%s?certs=%s&servername=daemon.test", n.l.Addr(), a.dockerCerts(t, name))
		cmd := exec.Command(filepath.Join(binaries, "slipway"), append([]string{"--addr", at}, args...)...)
		var out, errOut bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errOut
		err := cmd.Run()
		return result{code: cmd.ProcessState.ExitCode(), out: out.String(), errOut: errOut.String() + fmt.Sprint(err)}
	}
	out := filepath.Join(t.TempDir(), "out")
	dir := write(t, map[string]string{"late": "sent late", "Dockerfile": base + "RUN for i in 1 2 3 4 5; do echo line $i; sleep 1; done; echo made > /made\nCOPY late /late\n"})
	ctx, calm := context.WithCancel(t.Context())
	var storm sync.WaitGroup
	storm.Go(func() { n.chaos(ctx, time.Second, time.Second) })
	r := as("ann", "build", "--progress", "plain", bb, "-o", out, dir)
	calm()
	storm.Wait()
	if r.code != 0 || strings.Count(r.errOut, " line 5\n") != 1 || read(t, out, "made") != "made\n" || read(t, out, "late") != "sent late" {
		t.Errorf("build: exit %d\n%s", r.code, r.all())
	}
	if n.cuts.Load() < 2 {
		t.Errorf("only %d cuts", n.cuts.Load())
	}
	running := func() bool { return len(processesNaming("sleep\x0022361")) > 0 }
	r = as("ann", "build", "--detach", bb, "-o", "type=cacheonly", write(t, map[string]string{"Dockerfile": base + "RUN sleep 22361\n"}))
	waitFor(t, "the step to run", running)
	id := strings.TrimSpace(r.out)
	if r := as("bob", "cancel", id); r.code != 1 || !strings.Contains(r.errOut, "another client's") {
		t.Errorf("another name in the certificate: exit %d\n%s", r.code, r.all())
	}
	if r := as("ann", "cancel", id); r.code != 0 {
		t.Errorf("the owner's: exit %d\n%s", r.code, r.all())
	}
	waitFor(t, "the step to end", func() bool { return !running() })
	waitFor(t, "the process in the background to end", func() bool { return len(processesNaming("RUN sleep 22361")) == 0 })
}
