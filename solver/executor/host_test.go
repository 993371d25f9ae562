package executor_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/slipwaybuild/slipway/solver/executor"
	"github.com/slipwaybuild/slipway/solver/executor/executortest"
	"github.com/slipwaybuild/slipway/solver/layers"
)

const busybox = "/bin/busybox"

// longAgo is the time of everything in the base layer: what is younger was touched.
var longAgo = time.Unix(1_000_000_000, 0)

// needHost skips where steps cannot be run.
func needHost(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if b, err := exec.Command(busybox, "uname").CombinedOutput(); err != nil {
		t.Skipf("needs a static busybox (apt-get install busybox-static): %v %s", err, b)
	}
}

// host is an executor with its store, both in directories of the test.
type host struct {
	executortest.Env
	runc *executor.Runc
	root string
}

func newHost(t *testing.T, change ...func(*executor.Options)) *host {
	t.Helper()
	needHost(t)
	dir := t.TempDir()
	store := openStore(t, filepath.Join(dir, "store"))
	o := executor.Options{Store: store, Root: filepath.Join(dir, "executor"), Logger: slog.New(slog.NewTextHandler(testWriter{t}, nil))}
	for _, f := range change {
		f(&o)
	}
	r, err := executor.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Check(t.Context()); err != nil {
		t.Skip(err)
	}
	h := &host{runc: r, root: o.Root}
	h.Env = executortest.Env{Store: store, Executor: r, Args: executortest.Shell}
	h.Base = h.layer(t, busyboxFiles(t)...)
	return h
}

// openStore opens a layer store and checks in the end that all was given back.
func openStore(t *testing.T, dir string) *layers.Store {
	t.Helper()
	store, err := layers.Open(t.Context(), layers.Options{Root: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// file is an entry of a tar.
type file struct {
	name, data, link string
	mode             int64
	uid, gid         int
}

func busyboxFiles(t *testing.T) []file {
	t.Helper()
	b, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	files := []file{
		{name: "bin/", mode: 0o755},
		{name: "bin/busybox", data: string(b), mode: 0o755},
		{name: "etc/", mode: 0o755},
		{name: "etc/passwd", data: "root:x:0:0::/root:/bin/sh\nada:x:1000:1001::/home/ada:/bin/sh\n", mode: 0o644},
		{name: "etc/group", data: "root:x:0:\nada:x:1001:\nwheel:x:10:root,ada\nother:x:20:\n", mode: 0o644},
		{name: "opt/", mode: 0o755},
		{name: "opt/full/", mode: 0o755},
		{name: "opt/full/a", data: "a", mode: 0o644},
		{name: "opt/full/b", data: "b", mode: 0o644},
		{name: "opt/empty/", mode: 0o700},
	}
	for _, applet := range []string{"sh", "cat", "sleep", "rm", "mkdir", "ls", "id", "pwd", "env", "stat", "ip", "mount", "chmod", "touch", "ln", "nc", "test", "head", "seq", "df", "mv", "su", "hostname", "dd", "kill", "ps", "find", "grep", "true", "tty", "stty"} {
		files = append(files, file{name: "bin/" + applet, link: "busybox"})
	}
	return files
}

// layer imports files as a layer that lives as long as the test.
func (h *host) layer(t *testing.T, files ...file) []layers.ID {
	t.Helper()
	ref, err := h.Store.Import(t.Context(), tarOf(t, files), layers.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ref.Release(); err != nil {
			t.Error(err)
		}
	})
	return ref.IDs()
}

func tarOf(t *testing.T, files []file) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		hdr := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.data)), Uid: f.uid, Gid: f.gid, ModTime: longAgo, Typeflag: tar.TypeReg}
		switch {
		case f.link != "":
			hdr.Typeflag, hdr.Linkname = tar.TypeSymlink, f.link
		case strings.HasSuffix(f.name, "/"):
			hdr.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(hdr); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// on is a base with more files on top.
func (h *host) on(t *testing.T, files ...file) []layers.ID {
	t.Helper()
	return append(slices.Clone(h.Base), h.layer(t, files...)...)
}

// result is what a step did.
type result struct {
	stdout, stderr string
	out            *executor.Outcome
	err            error
}

// sh runs a script on the base, changed by change.
func (h *host) sh(t *testing.T, script string, change func(*executor.Spec)) result {
	t.Helper()
	return h.shWith(t, script, nil, change)
}

func (h *host) shWith(t *testing.T, script string, svc executor.Services, change func(*executor.Spec)) result {
	t.Helper()
	spec := executor.Spec{
		ID:     t.Name(),
		Args:   []string{"/bin/sh", "-c", script},
		Cwd:    "/",
		Mounts: []executor.Mount{{Dest: "/", Type: executor.MountBind, Layers: h.Base, Output: true}},
	}
	if change != nil {
		change(&spec)
	}
	var stdout, stderr bytes.Buffer
	out, err := h.runc.Run(t.Context(), spec, svc, executor.IO{Stdout: &stdout, Stderr: &stderr}, nil)
	if out != nil {
		t.Cleanup(func() { executortest.Release(t, out) })
	}
	return result{stdout: stdout.String(), stderr: stderr.String(), out: out, err: err}
}

func (r result) ok(t *testing.T) result {
	t.Helper()
	if r.err != nil {
		t.Fatalf("run: %v\n%s", r.err, r.stderr)
	}
	return r
}

func (r result) says(t *testing.T, want string) result {
	t.Helper()
	r.ok(t)
	if r.stdout != want {
		t.Errorf("step said %q, want %q\n%s", r.stdout, want, r.stderr)
	}
	return r
}

// wrote checks what the root's layer has entries for, and nothing else but the directories that runtimes make for themselves.
func (r result) wrote(t *testing.T, h *host, want ...string) result {
	t.Helper()
	r.ok(t)
	got := slices.DeleteFunc(executortest.Paths(t, h.Store, r.out.Outputs[0]), func(p string) bool {
		return p == "dev/" || p == "proc/" || p == "sys/"
	})
	if !slices.Equal(got, want) {
		t.Errorf("layer holds %q, want %q", got, want)
	}
	return r
}

func (r result) invalid(t *testing.T, words ...string) {
	t.Helper()
	var invalid *executor.InvalidSpecError
	if !errors.As(r.err, &invalid) {
		t.Fatalf("error %v, want an invalid spec", r.err)
	}
	for _, w := range words {
		if !strings.Contains(r.err.Error(), w) {
			t.Errorf("error %q does not say %q", r.err, w)
		}
	}
}

// nothingLeft checks that an executor without steps holds nothing.
func (h *host) nothingLeft(t *testing.T) {
	t.Helper()
	for _, dir := range []string{"steps", "runtime", "tmp"} {
		entries, err := os.ReadDir(filepath.Join(h.root, dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			t.Errorf("left behind: %s", filepath.Join(dir, e.Name()))
		}
	}
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, " "+h.root) {
			t.Errorf("still mounted: %s", line)
		}
	}
}

func fds(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// processes are the ids of those whose command line holds word.
func processes(t *testing.T, word string) []int {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, name := range names {
		if b, err := os.ReadFile(name); err == nil && bytes.Contains(b, []byte(word)) {
			pid, err := strconv.Atoi(strings.Split(name, "/")[2])
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

// seconds is a number that no other command line holds, fit to be slept for.
func seconds() string { return fmt.Sprint(100_000_000 + rand.IntN(900_000_000)) }
