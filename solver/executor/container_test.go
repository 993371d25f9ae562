package executor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/slipwaybuild/slipway/solver/executor"
	"github.com/slipwaybuild/slipway/solver/executor/executortest"
)

// container is one over the base, released in the end.
func (h *host) container(t *testing.T, svc executor.Services, mounts ...executor.Mount) *executor.Container {
	t.Helper()
	mounts = append(mounts, executor.Mount{Dest: "/", Layers: h.Base})
	c, err := h.runc.NewContainer(t.Context(), executor.ContainerSpec{ID: t.Name(), Mounts: mounts, Hostname: "boat"}, svc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Release(); err != nil {
			t.Error(err)
		}
		h.nothingLeft(t)
	})
	return c
}

func script(text string) executor.ProcessSpec {
	return executor.ProcessSpec{Args: []string{"/bin/sh", "-c", text}}
}

func start(t *testing.T, c *executor.Container, spec executor.ProcessSpec, o executor.IO) *executor.Process {
	t.Helper()
	p, err := c.Start(t.Context(), spec, o)
	if err != nil {
		t.Fatalf("start %q: %v", spec.Args, err)
	}
	return p
}

// says runs a process to its end and returns what it printed.
func says(t *testing.T, c *executor.Container, spec executor.ProcessSpec) string {
	t.Helper()
	var out bytes.Buffer
	if err := start(t, c, spec, executor.IO{Stdout: &out, Stderr: &out}).Wait(t.Context()); err != nil {
		t.Errorf("%q: %v\n%s", spec.Args, err, out.String())
	}
	return out.String()
}

func TestProcessesShareAContainer(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	svc := executortest.Services{Secrets: map[string]string{"s": "hunter2"}}
	c := h.container(t, svc, executor.Mount{Dest: "/tmp", Type: executor.MountTmpfs}, executor.Mount{Dest: "/s", Type: executor.MountSecret, ID: "s", Mode: 0o400})
	sleep := seconds()
	first := start(t, c, executor.ProcessSpec{Args: []string{"/bin/sleep", sleep}}, executor.IO{})
	if got := says(t, c, script("echo x >/tmp/f; hostname; cat /s")); got != "boat\nhunter2" {
		t.Errorf("the second process said %q", got)
	}
	if got := says(t, c, script("cat /tmp/f; cat /proc/1/cmdline | tr '\\0' ' '")); got != "x\n/bin/sleep "+sleep+" " {
		t.Errorf("the third process said %q", got)
	}
	ada := script("id -u; id -g; pwd; echo $HOME $A $B")
	ada.User, ada.Cwd, ada.Env = "ada", "/opt", []string{"A=a"}
	ada.SecretEnvs = []executor.SecretEnv{{ID: "s", Name: "B"}, {ID: "none", Name: "C", Optional: true}}
	if got := says(t, c, ada); got != "1000\n1001\n/opt\n/home/ada a hunter2\n" {
		t.Errorf("another user's process said %q", got)
	}
	var exit *executor.ExitError
	if err := start(t, c, script("exit 42"), executor.IO{}).Wait(t.Context()); !errors.As(err, &exit) || exit.Code != 42 {
		t.Errorf("error %v, want 42", err)
	}
	var failed *executor.StartError
	if _, err := c.Start(t.Context(), executor.ProcessSpec{Args: []string{"/nothing"}}, executor.IO{}); !errors.As(err, &failed) || failed.Code != 127 {
		t.Errorf("a missing command: %v", err)
	}
	if err := c.Release(); err != nil {
		t.Error(err)
	}
	if err := first.Wait(t.Context()); !errors.Is(err, executor.ErrReleased) {
		t.Errorf("the first process ended with %v", err)
	}
	if left := processes(t, sleep); len(left) > 0 {
		t.Errorf("left running: %v", left)
	}
	if _, err := c.Start(t.Context(), script(":"), executor.IO{}); !errors.Is(err, executor.ErrReleased) {
		t.Errorf("start in what was released: %v", err)
	}
}

func TestAllEndWithTheFirst(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	c := h.container(t, nil)
	r, w := io.Pipe()
	first := start(t, c, script("read x; exit 3"), executor.IO{Stdin: r})
	second := start(t, c, executor.ProcessSpec{Args: []string{"/bin/sleep", seconds()}}, executor.IO{})
	if _, err := w.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	var exit *executor.ExitError
	if err := first.Wait(t.Context()); !errors.As(err, &exit) || exit.Code != 3 {
		t.Errorf("the first ended with %v", err)
	}
	if err := second.Wait(t.Context()); !errors.As(err, &exit) || exit.Code != 137 {
		t.Errorf("the second ended with %v", err)
	}
	if _, err := c.Start(t.Context(), script(":"), executor.IO{}); !errors.Is(err, executor.ErrEnded) {
		t.Errorf("start after the end: %v", err)
	}
}

// waiting returns what a process prints to, and what to wait on until it printed want.
func waiting(want string) (*feed, <-chan struct{}) {
	seen := make(chan struct{})
	return &feed{want: want, seen: func() { close(seen) }}, seen
}

func TestSignalsReachOneProcess(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	c := h.container(t, nil)
	trap := script("trap 'exit 9' HUP; echo ready; while :; do sleep 0.05; done")
	start(t, c, executor.ProcessSpec{Args: []string{"/bin/sleep", seconds()}}, executor.IO{})
	out, ready := waiting("ready")
	p := start(t, c, trap, executor.IO{Stdout: out})
	<-ready
	if err := p.Signal(t.Context(), 1); err != nil {
		t.Error(err)
	}
	var exit *executor.ExitError
	if err := p.Wait(t.Context()); !errors.As(err, &exit) || exit.Code != 9 {
		t.Errorf("ended with %v", err)
	}
	sleep := seconds()
	for end, want := range map[string]func(*executor.Process){
		"killed":      func(p *executor.Process) { p.Kill() },
		"signal KILL": func(p *executor.Process) { _ = p.Signal(t.Context(), 9) },
	} {
		victim := start(t, c, executor.ProcessSpec{Args: []string{"/bin/sleep", sleep}}, executor.IO{})
		want(victim)
		if err := victim.Wait(t.Context()); !errors.Is(err, executor.ErrKilled) && (!errors.As(err, &exit) || exit.Code != 137) {
			t.Errorf("%s: ended with %v", end, err)
		}
		if left := processes(t, sleep); len(left) > 0 {
			t.Errorf("%s: left running: %v", end, left)
		}
	}
	if got := says(t, c, script("echo on")); got != "on\n" {
		t.Errorf("the container did not survive: %q", got)
	}
}

func TestTerminalsOfTwoProcesses(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	c := h.container(t, nil)
	for _, which := range []string{"first", "second"} {
		in, w := io.Pipe()
		t.Cleanup(func() { _ = w.Close() })
		out, ready := waiting("ready")
		p := start(t, c, script("trap 'stty size' WINCH; tty; echo ready; while :; do read x; done"), executor.IO{Stdin: in, Stdout: out, Tty: true})
		<-ready
		sized := make(chan struct{})
		out.mu.Lock()
		out.want, out.seen = "33 101", func() { close(sized) }
		out.mu.Unlock()
		if err := p.Resize(t.Context(), executor.Size{Rows: 33, Cols: 101}); err != nil {
			t.Errorf("%s: %v", which, err)
		}
		<-sized
	}
}

func TestFilesOfAContainer(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	extra := h.layer(t, file{name: "sel/", mode: 0o755}, file{name: "sel/f", data: "0123456789", mode: 0o640})
	c := h.container(t, nil, executor.Mount{Dest: "/m", Layers: extra, Selector: "sel", ReadOnly: true}, executor.Mount{Dest: "/t", Type: executor.MountTmpfs})
	says(t, c, script("cd /opt && mkfifo fifo && ln -s /opt/plain link && ln -s /m/f far && echo x >plain"))
	if b, err := c.ReadFile(0, "/f", 2, 3); err != nil || string(b) != "234" {
		t.Errorf("a range: %q, %v", b, err)
	}
	if b, err := c.ReadFile(2, "/opt/link", 0, 100); err != nil || string(b) != "x\n" {
		t.Errorf("a link: %q, %v", b, err)
	}
	if _, err := c.ReadFile(2, "/opt/fifo", 0, 1); !errors.Is(err, executor.ErrNotRegular) {
		t.Errorf("a fifo: %v", err)
	}
	_, err := c.ReadFile(2, "/opt/none", 0, 1)
	if !errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), h.root) || !strings.Contains(err.Error(), "/opt/none") {
		t.Errorf("a missing file: %v", err)
	}
	if e, err := c.Stat(2, "/opt/far"); err != nil || e.Linkname != "/m/f" || e.Path != "far" {
		t.Errorf("a link to another mount: %+v, %v", e, err)
	}
	if e, err := c.Stat(2, "/opt/link"); err != nil || e.Linkname != "" || e.Size != 2 || e.Path != "link" {
		t.Errorf("a link: %+v, %v", e, err)
	}
	if e, err := c.Stat(2, "/"); err != nil || !e.IsDir() {
		t.Errorf("the root: %+v, %v", e, err)
	}
	if list, err := c.ReadDir(2, "/opt"); err != nil || len(list) != 6 || list[2].Path != "fifo" {
		t.Errorf("the directory: %+v, %v", list, err)
	}
	var invalid *executor.InvalidSpecError
	for _, i := range []int{-1, 1, 3} {
		if _, err := c.Stat(i, "/"); !errors.As(err, &invalid) {
			t.Errorf("mount %d: %v", i, err)
		}
	}
}

func TestContainerThatNobodyStarts(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	c := h.container(t, nil, executor.Mount{Dest: "/c", Type: executor.MountCache, CacheKey: "k"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Start(ctx, script("sleep 1000"), executor.IO{}); !errors.Is(err, context.Canceled) {
		t.Errorf("start for nobody: %v", err)
	}
	if _, err := h.runc.NewContainer(t.Context(), executor.ContainerSpec{Mounts: []executor.Mount{{Dest: "/", Selector: "none", Layers: h.Base}}}, nil); err == nil {
		t.Error("a container over what is not there")
	}
}

func TestContainersWithCrun(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("crun"); err != nil {
		t.Skipf("needs crun: %v", err)
	}
	h := newHost(t, func(o *executor.Options) { o.Binary = "crun" })
	c := h.container(t, nil)
	start(t, c, executor.ProcessSpec{Args: []string{"/bin/sleep", seconds()}}, executor.IO{})
	if got := says(t, c, script("echo hello")); got != "hello\n" {
		t.Errorf("the second process said %q", got)
	}
	victim := start(t, c, executor.ProcessSpec{Args: []string{"/bin/sleep", seconds()}}, executor.IO{})
	victim.Kill()
	if err := victim.Wait(t.Context()); !errors.Is(err, executor.ErrKilled) {
		t.Errorf("ended with %v", err)
	}
}

// TestAgentOutlivesTheCall makes a container in a call that ends, as that of a client does, and then uses its ssh agent.
func TestAgentOutlivesTheCall(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	svc := executortest.Services{Agents: map[string]func(net.Conn){"default": func(c net.Conn) {
		b := make([]byte, 4)
		if _, err := io.ReadFull(c, b); err == nil {
			_, _ = fmt.Fprintf(c, "pong for %s", b)
		}
		_ = c.Close()
	}}}
	ctx, cancel := context.WithCancel(t.Context())
	c, err := h.runc.NewContainer(ctx, executor.ContainerSpec{Mounts: []executor.Mount{
		{Dest: "/", Layers: h.Base}, {Dest: "/run/agent.0", Type: executor.MountSSH, ID: "default", Mode: 0o600},
	}}, svc)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	sleep := seconds()
	start(t, c, executor.ProcessSpec{Args: []string{"/bin/sleep", sleep}}, executor.IO{})
	if got := says(t, c, script("echo $SSH_AUTH_SOCK")); got != "/run/agent.0\n" {
		t.Errorf("the socket is %q", got)
	}
	// The runtime's command line does not hold it: it is in the bundle.
	pids := processes(t, sleep)
	if len(pids) != 1 {
		t.Fatalf("processes %v, want one", pids)
	}
	ask(t, fmt.Sprintf("/proc/%d/root/run/agent.0", pids[0]))
	if err := c.Release(); err != nil {
		t.Error(err)
	}
	h.nothingLeft(t)
}
