package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/slipwaybuild/slipway/solver/layers/images/containerdtest"
)

// binaries is where TestMain put slipway and slipwayd.
var binaries string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "slipway-e2e-bin-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		build := exec.Command("go", "build", "-o", dir+"/", "../../cmd/slipway", "../../cmd/slipwayd")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build the programs: %v\n%s", err, out)
			return 1
		}
		binaries = dir
		end, err := startContainerd()
		if err != nil {
			fmt.Fprintln(os.Stderr, "start containerd:", err)
			return 1
		}
		code := m.Run()
		if err := end(); err != nil {
			fmt.Fprintln(os.Stderr, "end containerd:", err)
			return 1
		}
		return code
	}())
}

// need skips a test that cannot run on this host, and says why.
func need(t *testing.T, programs ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: the daemon mounts file systems and starts containers")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("needs %s: %v", p, err)
		}
	}
}

// daemon is a slipwayd of one test.
type daemon struct {
	t      *testing.T
	dir    string
	socket string
	root   string
	args   []string
	env    []string
	// program is what is started; empty is slipwayd.
	program string
	cmd     *exec.Cmd
	log     *os.File

	containerd *containerdtest.Server // that has its images; nil if it has them itself
	namespace  string
}

// startDaemon starts a daemon that is ended, and found to have left nothing behind, when the test is.
func startDaemon(t *testing.T, args ...string) *daemon {
	t.Helper()
	need(t, "runc", "busybox")
	d := &daemon{t: t, dir: shortTemp(t), args: args}
	d.socket = filepath.Join(d.dir, "s.sock")
	d.root = filepath.Join(d.dir, "root")
	if shared != nil {
		d.useContainerd(shared)
	}
	t.Cleanup(func() { // before the start: a daemon that never answers is ended, too
		d.stop()
		d.checkNothingLeft()
	})
	d.start()
	return d
}

// shortTemp is a temporary directory whose name leaves room for a socket's: the kernel takes about a hundred bytes.
func shortTemp(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the daemon's directory: %v", err)
		}
	})
	return dir
}

func (d *daemon) start() {
	d.t.Helper()
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	d.log = log
	program := d.program
	if program == "" {
		program = filepath.Join(binaries, "slipwayd")
	}
	d.cmd = exec.Command(program, append([]string{"--addr", "unix://" + d.socket, "--root", d.root}, d.args...)...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if d.env != nil {
		d.cmd.Env = d.env
	}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.waitReady()
}

func (d *daemon) waitReady() {
	d.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		out, err := exec.Command(filepath.Join(binaries, "slipway"), "--addr", "unix://"+d.socket, "version").Output()
		if err == nil && !bytes.Contains(out, []byte("not ")) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	d.t.Fatalf("the daemon does not answer; its log:\n%s", d.logText())
}

// stop ends the daemon as an init system does, and fails the test if it says that anything leaked.
func (d *daemon) stop() {
	d.t.Helper()
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan error, 1)
	go func() { done <- d.cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			d.t.Errorf("the daemon ended badly: %v; its log:\n%s", err, d.logText())
		}
	case <-time.After(60 * time.Second):
		_ = d.cmd.Process.Signal(syscall.SIGQUIT)
		<-done
		d.t.Errorf("the daemon did not end in time; its log:\n%s", d.logText())
	}
	d.cmd = nil
	_ = d.log.Close()
}

// kill is what the kernel does when memory is short.
func (d *daemon) kill() {
	d.t.Helper()
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait()
	d.cmd = nil
	_ = d.log.Close()
}

func (d *daemon) logText() string {
	b, _ := os.ReadFile(filepath.Join(d.dir, "log"))
	return string(b[max(0, len(b)-16<<10):])
}

// checkNothingLeft looks for mounts and processes that outlived the daemon.
func (d *daemon) checkNothingLeft() {
	d.t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		d.t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, d.root) {
			d.t.Errorf("mount left behind: %s", line)
		}
	}
	for _, pid := range processesNaming(d.root) {
		d.t.Errorf("process left behind: %s", pid)
	}
	if d.containerd != nil {
		d.checkNoLeases()
	}
}

// processesNaming lists processes whose command line holds a text.
func processesNaming(text string) []string {
	var found []string
	dirs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range dirs {
		b, err := os.ReadFile(path)
		if err == nil && bytes.Contains(b, []byte(text)) {
			found = append(found, strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	return found
}

// result is what a command printed and how it ended.
type result struct {
	code        int
	out, errOut string
}

func (r result) all() string { return r.out + r.errOut }

// run runs slipway against the daemon.
func (d *daemon) run(args ...string) result {
	d.t.Helper()
	return d.runContext(d.t.Context(), nil, args...)
}

func (d *daemon) runContext(ctx context.Context, stdin []byte, args ...string) result {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(binaries, "slipway"), append([]string{"--addr", "unix://" + d.socket}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	if stdin != nil {
		cmd.Stdin = bytes.NewReader(stdin)
	}
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	r := result{out: out.String(), errOut: errOut.String()}
	var ee *exec.ExitError
	switch {
	case errors.As(err, &ee):
		r.code = ee.ExitCode()
	case err != nil && ctx.Err() == nil:
		d.t.Fatal(err)
	}
	return r
}

// build runs slipway build with plain progress and fails the test if the build fails.
func (d *daemon) build(args ...string) result {
	d.t.Helper()
	r := d.run(append([]string{"build", "--progress", "plain"}, args...)...)
	if r.code != 0 {
		d.t.Fatalf("slipway build %s: exit %d\n%s\nthe daemon's log:\n%s", strings.Join(args, " "), r.code, r.all(), d.logText())
	}
	return r
}

// write makes files below a new directory and returns it.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// busyboxContext is the flag that gives a build the host's static busybox as the context "busybox".
func busyboxContext(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Skipf("needs busybox: %v", err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "busybox"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	return "--build-context=busybox=" + dir
}

// base begins a Dockerfile with a root file system in which a shell runs.
const base = `FROM scratch AS base
COPY --from=busybox busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
`
