package e2e

import (
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

	bkclient "github.com/moby/buildkit/client"
	"github.com/tonistiigi/fsutil"
)

// user is somebody on this host who may use a root daemon.
type user struct {
	d        *daemon
	id       uint32
	home     string
	programs string
}

// asUser lets a user connect to the daemon.
func (d *daemon) asUser(id uint32) *user {
	d.t.Helper()
	u := &user{d: d, id: id, home: shortTemp(d.t)}
	u.programs = u.home
	if err := errors.Join(os.Chmod(u.home, 0o755), os.Chown(u.home, int(id), int(id))); err != nil {
		d.t.Fatal(err)
	}
	copyFile(d.t, filepath.Join(binaries, "slipway"), filepath.Join(u.programs, "slipway"))
	for _, path := range []string{d.dir, d.socket} {
		if err := os.Chmod(path, 0o777); err != nil {
			d.t.Fatal(err)
		}
	}
	return u
}

// dir makes files of the user's own.
func (u *user) dir(files map[string]string) string {
	u.d.t.Helper()
	dir := filepath.Join(u.home, fmt.Sprint("dir", time.Now().UnixNano()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		u.d.t.Fatal(err)
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			u.d.t.Fatal(err)
		}
	}
	err := filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(p, int(u.id), int(u.id)))
	})
	if err != nil {
		u.d.t.Fatal(err)
	}
	return dir
}

func (u *user) build(args ...string) (string, error) {
	u.d.t.Helper()
	ctx, cancel := context.WithTimeout(u.d.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(u.programs, "slipway"), append([]string{"--addr", "unix://" + u.d.socket, "build", "--progress", "plain"}, args...)...)
	cmd.Dir, cmd.Env = u.home, append(os.Environ(), "HOME="+u.home)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: u.id, Gid: u.id}}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// passed and synced count what the daemon was given of directories and files, and what was sent through sessions.
func (d *daemon) passed() int { return strings.Count(d.wholeLog(), "grpc.service=slipway.samehost") }
func (d *daemon) synced() int { return strings.Count(d.wholeLog(), "grpc.service=moby.filesync") }

func (d *daemon) wholeLog() string {
	d.t.Helper()
	b, err := os.ReadFile(filepath.Join(d.dir, "log"))
	if err != nil {
		d.t.Fatal(err)
	}
	return string(b)
}

func TestSameHost(t *testing.T) {
	d := startDaemon(t, "--debug")
	dir := write(t, map[string]string{
		"Dockerfile": "FROM scratch\nCOPY . /ctx/\nCOPY --from=other . /other/\n", "a/b": "1", "c": "2", ".dockerignore": "skip\n", "skip/x": "3",
	})
	other := write(t, map[string]string{"o": "4"})
	out, archive := filepath.Join(t.TempDir(), "out"), filepath.Join(t.TempDir(), "out.tar")
	r := d.build("--build-context", "other="+other, "-o", out, "-o", "type=tar,dest="+archive, "-o", "type=oci,dest="+archive+".oci", dir)
	if got := read(t, out, "ctx/a/b") + read(t, out, "ctx/c") + read(t, out, "other/o"); got != "124" {
		t.Errorf("built %q", got)
	}
	if _, err := os.Stat(filepath.Join(out, "ctx/skip")); err == nil {
		t.Error("what is to be ignored was not")
	}
	list, err := exec.Command("tar", "-tf", archive).CombinedOutput()
	if err != nil || !strings.Contains(string(list), "ctx/a/b") {
		t.Errorf("archive: %v\n%s", err, list)
	}
	if l, err := exec.Command("tar", "-tf", archive+".oci").CombinedOutput(); err != nil || !strings.Contains(string(l), "index.json") {
		t.Errorf("OCI archive: %v\n%s", err, l)
	}
	if d.passed() < 5 || d.synced() > 0 {
		t.Errorf("%d times passed, %d times sent through the session\n%s", d.passed(), d.synced(), r.errOut)
	}
	// A client that knows nothing of it gets the same from the cache.
	c, err := bkclient.New(t.Context(), "unix://"+d.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	mounts := map[string]fsutil.FS{}
	for name, p := range map[string]string{"context": dir, "dockerfile": dir, "other": other} {
		if mounts[name], err = fsutil.NewFS(p); err != nil {
			t.Fatal(err)
		}
	}
	statuses := make(chan *bkclient.SolveStatus)
	var ran []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		cached := map[string]bool{}
		for s := range statuses {
			for _, v := range s.Vertexes {
				if strings.Contains(v.Name, "COPY") && v.Completed != nil && !cached[v.Name] {
					cached[v.Name] = true
					if !v.Cached {
						ran = append(ran, v.Name)
					}
				}
			}
		}
	}()
	_, err = c.Solve(t.Context(), nil, bkclient.SolveOpt{Frontend: "dockerfile.v0", LocalMounts: mounts, FrontendAttrs: map[string]string{
		"context:other": "local:other", "frontend.caps": "moby.buildkit.frontend.contexts+forward",
	}}, statuses)
	<-done
	if err != nil {
		t.Fatal(err)
	}
	if len(ran) > 0 {
		t.Errorf("not from the cache: %v", ran)
	}
	if d.synced() == 0 {
		t.Error("that client's files were not sent")
	}
}

// A root daemon serves a user what that user may read and write, and nothing else.
func TestSameHostOfAUser(t *testing.T) {
	d := startDaemon(t, "--debug")
	u := d.asUser(65534)
	dir := u.dir(map[string]string{"Dockerfile": "FROM scratch\nCOPY . /\n", "mine": "mine", "locked": "secret of root"})
	if err := os.Chmod(filepath.Join(dir, "mine"), 0o400); err != nil {
		t.Fatal(err)
	}
	outs := u.dir(nil)
	if out, err := u.build("-o", filepath.Join(outs, "out"), dir); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if d.passed() < 3 || d.synced() > 0 {
		t.Errorf("%d times passed, %d times sent through the session", d.passed(), d.synced())
	}
	fi, err := os.Stat(filepath.Join(outs, "out/mine"))
	if err != nil {
		t.Fatal(err)
	}
	if st := fi.Sys().(*syscall.Stat_t); st.Uid != 65534 || fi.Mode().Perm() != 0o400 {
		t.Errorf("written for %d, %v", st.Uid, fi.Mode())
	}
	// Root's file: the daemon may read it, and has, for root. The user may not.
	locked := filepath.Join(dir, "locked")
	if err := errors.Join(os.Chown(locked, 0, 0), os.Chmod(locked, 0o600)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond) // so that what root's build learns of it counts
	d.build("-o", t.TempDir(), dir)
	if out, err := u.build("-o", filepath.Join(outs, "again"), dir); err == nil || !strings.Contains(out, "locked") || !strings.Contains(out, "permission denied") {
		t.Errorf("a file that the user cannot read: %v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(outs, "again")); err == nil {
		t.Error("a failed build left its output")
	}
	if err := os.Remove(locked); err != nil {
		t.Fatal(err)
	}
	// Links are what they are, wherever they lead.
	for name, to := range map[string]string{"shadow": "/etc/shadow", "up": "../../..", "root": "/proc/1/root"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := u.build("-o", filepath.Join(outs, "links"), dir); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if to, err := os.Readlink(filepath.Join(outs, "links/shadow")); err != nil || to != "/etc/shadow" {
		t.Errorf("%q, %v", to, err)
	}
	through := u.dir(map[string]string{"Dockerfile": "FROM scratch\nCOPY shadow/ up/etc/passwd /\n"})
	for name, to := range map[string]string{"shadow": "/etc/shadow", "up": "../../.."} {
		if err := os.Symlink(to, filepath.Join(through, name)); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := u.build("-o", filepath.Join(outs, "through"), through); err == nil {
		t.Errorf("through a link out of the context\n%s", out)
	}
	// Where the user may not write, nothing is written.
	roots := t.TempDir()
	for p := roots; p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, dest := range []string{"type=local,dest=" + roots, "type=local,dest=" + roots + "/new", "type=tar,dest=" + roots + "/f.tar"} {
		if out, err := u.build("-o", dest, dir); err == nil || !strings.Contains(out, "permission denied") {
			t.Errorf("%s: %v\n%s", dest, err, out)
		}
	}
	if l, err := os.ReadDir(roots); err != nil || len(l) > 0 {
		t.Errorf("in root's directory: %v, %v", l, err)
	}
}

// Whoever goes on working while a step runs gets what was there when the build began.
func TestSameHostEditedMeanwhile(t *testing.T) {
	d := startDaemon(t, "--debug")
	bb := busyboxContext(t)
	dir := write(t, map[string]string{
		"Dockerfile": "FROM busybox\nRUN [\"/busybox\", \"sleep\", \"6\"]\nCOPY . /ctx\n", "f": "old", "big": strings.Repeat("b", 3<<20),
	})
	time.Sleep(100 * time.Millisecond)
	d.build(bb, "-o", "type=cacheonly", dir) // so that nothing has to be read for its digest
	out := t.TempDir()
	go func() {
		time.Sleep(4 * time.Second)
		_ = os.WriteFile(filepath.Join(dir, "f"), []byte("new"), 0o644)
		_ = os.Remove(filepath.Join(dir, "big"))
	}()
	d.build(bb, "--no-cache", "-o", out, dir)
	if got := read(t, out, "ctx/f"); got != "old" {
		t.Errorf("f is %q", got)
	}
	if got := read(t, out, "ctx/big"); len(got) != 3<<20 {
		t.Errorf("big has %d bytes", len(got))
	}
}

// A directory that steps build on is copied, and what was built on it is found again.
func TestSameHostAsBase(t *testing.T) {
	d := startDaemon(t)
	file := "FROM busybox AS a\nRUN [\"/busybox\", \"mkdir\", \"/made\"]\nFROM busybox AS b\nCOPY f /\n" +
		"FROM scratch\nRUN --mount=type=bind,from=busybox,target=/bin --mount=type=bind,target=/src [\"/bin/busybox\", \"cp\", \"/src/f\", \"/copied\"]\n" +
		"COPY --from=a /made /made\nCOPY --from=b /f /f\n"
	files := write(t, map[string]string{"first": file, "second": file + "COPY f /g\n"})
	dir, out, bb := write(t, map[string]string{"f": "1"}), t.TempDir(), busyboxContext(t)
	d.build(bb, "-o", out, "-f", filepath.Join(files, "first"), dir)
	if got := read(t, out, "f") + read(t, out, "copied"); got != "11" {
		t.Errorf("%q", got)
	}
	r := d.build(bb, "-o", out, "-f", filepath.Join(files, "second"), dir)
	for _, step := range []string{"mkdir", "cp", "COPY f /\n", "COPY --from=a", "COPY --from=b"} {
		if !cachedStep(r.errOut, step) {
			t.Errorf("%q was not found again:\n%s", step, r.errOut)
		}
	}
}

// cachedStep says whether a step whose name has a text in it was in the cache, as the plain progress tells it.
func cachedStep(log, text string) bool {
	for line := range strings.Lines(log) {
		id, rest, ok := strings.Cut(line, " [")
		if ok && strings.HasPrefix(id, "#") && strings.Contains(rest, text) {
			return strings.Contains(log, "\n"+id+" CACHED")
		}
	}
	return false
}
