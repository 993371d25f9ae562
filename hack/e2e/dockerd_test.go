package e2e

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// engine is a daemon that speaks Docker's Engine API and is built with by slipway as any client of that.
type engine struct {
	t    *testing.T
	name string
	host string // unix://…
	log  func() string
	env  []string
	args []string // before the command's own
}

// eachEngine runs a test with Docker's own daemon, and with slipwayd by the same door.
func eachEngine(t *testing.T, f func(*testing.T, *engine)) {
	t.Helper()
	t.Run("dockerd", func(t *testing.T) { f(t, startDockerd(t)) })
	t.Run("slipwayd", func(t *testing.T) {
		d := startDaemon(t)
		f(t, newEngine(t, "slipwayd", "unix://"+d.socket, d.logText))
	})
}

func newEngine(t *testing.T, name, host string, log func() string) *engine {
	return &engine{t: t, name: name, host: host, log: log, env: []string{"DOCKER_HOST=" + host}}
}

// startDockerd starts Docker's daemon, which is ended when the test is. It has no bridge, so steps need --network none.
func startDockerd(t *testing.T, args ...string) *engine {
	t.Helper()
	need(t, "dockerd", "busybox")
	dir := shortTemp(t)
	socket, logFile := filepath.Join(dir, "d.sock"), filepath.Join(dir, "log")
	log, err := os.Create(logFile)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("dockerd", append([]string{"--bridge=none", "--iptables=false", "--ip-masq=false", "--log-level", "error",
		"--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"), "--pidfile", filepath.Join(dir, "pid"),
		"-H", "unix://" + socket}, args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		_ = log.Close()
	})
	e := newEngine(t, "dockerd", "unix://"+socket, func() string {
		b, _ := os.ReadFile(logFile)
		return string(b[max(0, len(b)-16<<10):])
	})
	e.waitReady()
	return e
}

// on is the same daemon for a part of the test.
func (e *engine) on(t *testing.T) *engine {
	part := *e
	part.t = t
	return &part
}

// waitReady waits for the daemon to say its version.
func (e *engine) waitReady() {
	e.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for time.Now().Before(deadline) {
		if r := e.run(nil, "version"); strings.Contains(r.out, "API ") {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	e.t.Fatalf("dockerd does not answer; its log:\n%s", e.log())
}

func (e *engine) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(binaries, "slipway"), append(e.args, args...)...)
	cmd.Env = append(os.Environ(), "SLIPWAY_HOST=")
	cmd.Env = append(cmd.Env, e.env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	return cmd
}

// run runs slipway against the daemon.
func (e *engine) run(stdin []byte, args ...string) result {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), 3*time.Minute)
	defer cancel()
	cmd := e.command(ctx, args...)
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
		e.t.Fatal(err)
	}
	return r
}

// build builds with plain progress and no network, and fails the test if the build fails.
func (e *engine) build(stdin []byte, args ...string) result {
	e.t.Helper()
	r := e.run(stdin, append([]string{"build", "--progress", "plain", "--network", "none"}, args...)...)
	if r.code != 0 {
		e.t.Fatalf("slipway build %s: exit %d\n%s\nthe daemon's log:\n%s", strings.Join(args, " "), r.code, r.all(), e.log())
	}
	return r
}

// fails builds and fails the test if that ends otherwise than with this exit code and these words.
func (e *engine) fails(code int, want string, stdin []byte, args ...string) result {
	e.t.Helper()
	r := e.run(stdin, append([]string{"build", "--progress", "plain", "--network", "none"}, args...)...)
	if r.code != code || !strings.Contains(r.errOut, want) {
		e.t.Errorf("slipway build %s: exit %d, want %d and %q\n%s", strings.Join(args, " "), r.code, code, want, r.all())
	}
	return r
}

// withBase builds the image "bb", in which a shell runs.
func (e *engine) withBase() {
	e.t.Helper()
	e.build(nil, "-t", "bb", dirWithBusybox(e.t, map[string]string{"Dockerfile": "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n"}))
}
