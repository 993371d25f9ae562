package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// detach builds in the background and returns the build's id.
func (d *daemon) detach(args ...string) string {
	d.t.Helper()
	began := time.Now()
	r := d.run(append([]string{"build", "--detach"}, args...)...)
	if r.code != 0 || !regexp.MustCompile(`^[0-9a-z]{25}\n$`).MatchString(r.out) {
		d.t.Fatalf("build --detach: exit %d, want nothing but an id\n%s", r.code, r.all())
	}
	d.t.Logf("detached in %s", time.Since(began).Round(time.Millisecond))
	return strings.TrimSpace(r.out)
}

// ls returns the line of a build.
func (d *daemon) ls(id string) string {
	d.t.Helper()
	r := d.run("ls")
	for line := range strings.Lines(r.out) {
		if strings.HasPrefix(line, id[:12]) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// detachedLogs keeps the logs of detached builds of this test to itself.
func detachedLogs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("XDG_STATE_HOME", dir)
	return filepath.Join(dir, "slipway")
}

func TestDetachedBuild(t *testing.T) {
	logs := detachedLogs(t)
	d := startDaemon(t)
	bb := busyboxContext(t)
	out := filepath.Join(t.TempDir(), "out")
	dir := write(t, map[string]string{"late": "from the client, later", "Dockerfile": base + `RUN echo first words; sleep 3.21; echo last words; echo made > /made
COPY late /late
`})
	id := d.detach("--target", "base", bb, "-o", out, dir)
	if line := d.ls(id); !strings.Contains(line, "Dockerfile (base)") || !strings.Contains(line, " running ") {
		t.Errorf("ls: %q", line)
	}
	if got := strings.Fields(d.run("ls", "-q", "--no-trunc", "--running").out); len(got) != 1 || got[0] != id {
		t.Errorf("ls -q: %q", got)
	}
	// Whoever comes sees all of it, at the same time as others, by the beginning of the id.
	seen := make(chan result, 2)
	for range 2 {
		go func() { seen <- d.run("attach", "--progress", "plain", id[:6]) }()
	}
	for range 2 {
		if r := <-seen; r.code != 0 || !strings.Contains(r.errOut, "first words") || !strings.Contains(r.errOut, "last words") {
			t.Errorf("attach: exit %d\n%s", r.code, r.all())
		}
	}
	if read(t, out, "made") != "made\n" || read(t, out, "late") != "from the client, later" {
		t.Error("what came out is not what was built")
	}
	if line := d.ls(id); !strings.Contains(line, " done ") || !regexp.MustCompile(` \d+/\d+ cached `).MatchString(line) {
		t.Errorf("ls: %q", line)
	}
	if r := d.run("logs", id); r.code != 0 || !strings.Contains(r.out, "first words") || strings.Contains(r.out, "\x1b") {
		t.Errorf("logs of a build that ended: exit %d\n%s", r.code, r.all())
	}
	waitFor(t, "the process in the background to end", func() bool { return len(processesNaming(dir)) == 0 })
	if s := read(t, logs, id+".log"); !strings.Contains(s, "last words") {
		t.Errorf("the log of the process in the background: %q", s)
	}
}

// TestDetachedBuildOutlivesItsTerminal has the group that started it hung up on, and killed.
func TestDetachedBuildOutlivesItsTerminal(t *testing.T) {
	detachedLogs(t)
	d := startDaemon(t)
	bb := busyboxContext(t)
	out := filepath.Join(t.TempDir(), "out")
	dir := write(t, map[string]string{"Dockerfile": base + "RUN sleep 2.79; echo made > /made\n"})
	sh := exec.Command("sh", "-c", fmt.Sprintf("%s --addr unix://%s build --detach %s -o %s %s; sleep 1000", filepath.Join(binaries, "slipway"), d.socket, bb, out, dir))
	sh.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := sh.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the step to run", func() bool { return len(processesNaming("sleep 2.79")) > 0 })
	waitFor(t, "the command to return", func() bool { return len(processesNaming("sleep\x001000")) > 0 })
	for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGKILL} {
		_ = syscall.Kill(-sh.Process.Pid, s)
	}
	_ = sh.Wait()
	waitFor(t, "the outcome", func() bool {
		b, _ := os.ReadFile(filepath.Join(out, "made"))
		return string(b) == "made\n"
	})
	waitFor(t, "the process in the background to end", func() bool { return len(processesNaming(dir)) == 0 })
}

func TestDetachedBuildThatFails(t *testing.T) {
	logs := detachedLogs(t)
	d := startDaemon(t)
	bb := busyboxContext(t)
	dir := write(t, map[string]string{"Dockerfile": base + "RUN echo oh dear; sleep 1; exit 3\n"})
	id := d.detach(bb, "-o", "type=cacheonly", dir)
	for _, when := range []string{"while it runs", "after its end"} {
		r := d.run("attach", "--progress", "plain", id)
		if r.code != 1 || !strings.Contains(r.errOut, "oh dear") || !strings.Contains(r.errOut, "exit code: 3") || !strings.Contains(r.errOut, ">>> RUN echo oh dear") {
			t.Errorf("attach %s: exit %d, want 1 and the lines of the Dockerfile\n%s", when, r.code, r.all())
		}
	}
	if line := d.ls(id); !strings.Contains(line, " failed ") {
		t.Errorf("ls: %q", line)
	}
	// What cannot even begin is said at once.
	for name, args := range map[string][]string{
		"no such directory": {"build", "--detach", filepath.Join(dir, "absent")},
		"no such flag":      {"build", "--detach", "--nonsense", dir},
		"standard output":   {"build", "--detach", "-o", "-", dir},
	} {
		if r := d.run(args...); r.code != 125 || !strings.Contains(r.errOut, "slipway:") || r.out != "" {
			t.Errorf("%s: exit %d\n%s", name, r.code, r.all())
		}
	}
	if list, err := os.ReadDir(logs); err != nil || len(list) != 1 {
		t.Errorf("logs: %v, %v; want that of the build that began alone", list, err)
	}
	for _, command := range []string{"attach", "logs", "cancel"} {
		if r := d.run(command, "nosuchbuild"); r.code != 1 || !strings.Contains(r.errOut, "no such build: nosuchbuild") {
			t.Errorf("%s of no build: exit %d\n%s", command, r.code, r.all())
		}
	}
	if r := d.run("cancel", id); r.code != 1 || !strings.Contains(r.errOut, "has ended") {
		t.Errorf("cancel of a build that ended: exit %d\n%s", r.code, r.all())
	}
}

func TestCancelledByName(t *testing.T) {
	detachedLogs(t)
	d := startDaemon(t)
	bb := busyboxContext(t)
	dir := write(t, map[string]string{"Dockerfile": base + "RUN sleep 14142\n"})
	running := func() bool { return len(processesNaming("sleep\x0014142")) > 0 }
	id := d.detach(bb, "-o", "type=cacheonly", dir)
	waitFor(t, "the step to run", running)
	watched := make(chan result, 1)
	go func() { watched <- d.run("attach", "--progress", "plain", id) }()
	if r := d.run("cancel", id[:8]); r.code != 0 || strings.TrimSpace(r.out) != id {
		t.Errorf("cancel: exit %d\n%s", r.code, r.all())
	}
	waitFor(t, "the step to end", func() bool { return !running() })
	if r := <-watched; r.code != 1 || !strings.Contains(r.errOut, "cancel") {
		t.Errorf("attach to a build that is cancelled: exit %d\n%s", r.code, r.all())
	}
	if line := d.ls(id); !strings.Contains(line, " canceled ") {
		t.Errorf("ls: %q", line)
	}
	waitFor(t, "the process in the background to end", func() bool { return len(processesNaming(dir)) == 0 })

	// A build of docker's is one like others.
	docker := sessionDocker(t)
	dockerDir := write(t, map[string]string{"Dockerfile": "FROM scratch AS base\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"sleep\", \"14142\"]\n"})
	copyFile(t, filepath.Join(busyboxDir(t), "busybox"), filepath.Join(dockerDir, "busybox"))
	ended := make(chan string, 1)
	go func() {
		b, _ := docker.command(context.WithoutCancel(t.Context()), d, "build", dockerDir).CombinedOutput()
		ended <- string(b)
	}()
	waitFor(t, "docker's step to run", running)
	ids := strings.Fields(d.run("ls", "-q", "--running").out)
	if len(ids) != 1 {
		t.Fatalf("running: %q", ids)
	}
	if r := d.run("cancel", ids[0]); r.code != 0 {
		t.Errorf("cancel of docker's build: exit %d\n%s", r.code, r.all())
	}
	if said := <-ended; !strings.Contains(said, "cancel") {
		t.Errorf("docker says\n%s", said)
	}
	waitFor(t, "the step to end", func() bool { return !running() })
}

// TestViewersAreNoBurden has one that never reads, and one that is interrupted.
func TestViewersAreNoBurden(t *testing.T) {
	detachedLogs(t)
	d := startDaemon(t)
	bb := busyboxContext(t)
	out := filepath.Join(t.TempDir(), "out")
	dir := write(t, map[string]string{"Dockerfile": base + "RUN sleep 2.22; seq 1 400000; echo made > /made\n"})
	id := d.detach(bb, "-o", out, dir)
	stuck := exec.Command(filepath.Join(binaries, "slipway"), "--addr", "unix://"+d.socket, "logs", id)
	pipe, err := stuck.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := stuck.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	time.AfterFunc(500*time.Millisecond, interrupt)
	if r := d.runContext(ctx, nil, "attach", "--progress", "plain", id); r.code != 130 {
		t.Errorf("attach, interrupted: exit %d\n%s", r.code, r.all())
	}
	waitFor(t, "the build to end", func() bool { return strings.Contains(d.ls(id), " done ") })
	if read(t, out, "made") != "made\n" {
		t.Error("the build is not what it should be")
	}
	_ = stuck.Process.Kill()
	_ = pipe.Close()
	_ = stuck.Wait()
	// Nothing of it was lost.
	if r := d.run("logs", id); !strings.Contains(r.out, " 1\n") || !strings.Contains(r.out, " 399999\n") || !strings.Contains(r.out, " 400000\n") {
		t.Errorf("the logs are not whole: %d bytes", len(r.out))
	}
}
