package e2e

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestExampleToDirectoryAndArchive(t *testing.T) {
	d := startDaemon(t)
	bb := busyboxContext(t)
	out := filepath.Join(t.TempDir(), "out")
	d.build(bb, "--build-arg", "GREETING=Hi", "-o", out, "../../examples/hello")
	if got := read(t, out, "greeting.txt"); got != "Hi, for the 1. time\n" {
		t.Errorf("greeting.txt: %q", got)
	}
	if got := read(t, out, "files.txt"); strings.Contains(got, "secret-plans") {
		t.Errorf("a file named in .dockerignore reached the build: %q", got)
	}
	if fi, err := os.Stat(filepath.Join(out, "bin/show")); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("bin/show: %v, %v", fi, err)
	}

	archive := filepath.Join(t.TempDir(), "hello.tar")
	r := d.build(bb, "--build-arg", "GREETING=Hi", "-t", "hello", "-o", "type=oci,dest="+archive, "../../examples/hello")
	assertAllCached(t, r)
	if fi, err := os.Stat(archive); err != nil || fi.Size() == 0 {
		t.Errorf("archive: %v, %v", fi, err)
	}
	r = d.build(bb, "--build-arg", "GREETING=Ho", "-o", out, "../../examples/hello")
	if got := read(t, out, "greeting.txt"); got != "Ho, for the 2. time\n" {
		t.Errorf("with another build argument: greeting.txt: %q", got)
	}
	for _, ran := range steps(r.errOut, "DONE") {
		if strings.Contains(ran, "RUN") && !strings.HasPrefix(ran, "[greeting ") {
			t.Errorf("another build argument ran %q, which does not use it", ran)
		}
	}
}

// steps lists the Dockerfile steps that ended in a state, by plain progress.
func steps(progress, state string) []string {
	names := map[string]string{}
	var list []string
	for line := range strings.Lines(progress) {
		number, rest, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || !strings.HasPrefix(number, "#") {
			continue
		}
		if strings.HasPrefix(rest, "[") {
			names[number] = rest
		}
		name := names[number]
		if strings.HasPrefix(rest, state) && name != "" && !strings.HasPrefix(name, "[internal]") && !strings.HasPrefix(name, "[context ") {
			list = append(list, name)
		}
	}
	return list
}

func assertAllCached(t *testing.T, r result) {
	t.Helper()
	if ran := steps(r.errOut, "DONE"); len(ran) > 0 {
		t.Errorf("these steps ran again: %q\n%s", ran, r.errOut)
	}
	if len(steps(r.errOut, "CACHED")) == 0 {
		t.Errorf("no step is shown as cached:\n%s", r.errOut)
	}
}

func TestCacheSurvivesRestart(t *testing.T) {
	d := startDaemon(t)
	bb := busyboxContext(t)
	dir := write(t, map[string]string{"Dockerfile": base + "RUN echo hello > /x\n"})
	d.build(bb, "-o", "type=cacheonly", dir)
	d.stop()
	d.start()
	assertAllCached(t, d.build(bb, "-o", "type=cacheonly", dir))
}

func TestIrrelevantEditRunsNothingBehindIt(t *testing.T) {
	d := startDaemon(t)
	bb := busyboxContext(t)
	dir := write(t, map[string]string{
		"Dockerfile": base + "COPY used /used\nRUN cat /used > /out\n", "used": "1", "unused": "1",
	})
	d.build(bb, "-o", "type=cacheonly", dir)
	if err := os.WriteFile(filepath.Join(dir, "unused"), []byte("2"), 0o644); err != nil {
		t.Fatal(err)
	}
	assertAllCached(t, d.build(bb, "-o", "type=cacheonly", dir))

	// Same size, same time, other bytes: a change is a change of content.
	used := filepath.Join(dir, "used")
	fi, err := os.Stat(used)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(used, []byte("2"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(used, fi.ModTime(), fi.ModTime()); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	d.build(bb, "-o", out, dir)
	if got := read(t, out, "out"); got != "2" {
		t.Errorf("a changed file of equal size and time was taken for unchanged: %q", got)
	}
	// A time alone is no change.
	if err := os.Chtimes(used, time.Now(), time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	assertAllCached(t, d.build(bb, "-o", "type=cacheonly", dir))
}

func TestNoCacheRunsEveryStepAndLaterBuildsSeeIt(t *testing.T) {
	d := startDaemon(t)
	bb := busyboxContext(t)
	dir := write(t, map[string]string{"Dockerfile": base + "RUN head -c8 /dev/urandom | od -An -tx1 > /random\nRUN cat /random > /copy\n"})
	out := t.TempDir()
	random := func(args ...string) string {
		d.build(append([]string{bb, "-o", out}, append(args, dir)...)...)
		if a, b := read(t, out, "random"), read(t, out, "copy"); a != b {
			t.Errorf("a step was built on another run of the step before it: %q and %q", a, b)
		}
		return read(t, out, "random")
	}
	first := random()
	if again := random(); again != first {
		t.Errorf("a cached step gave something else: %q, then %q", first, again)
	}
	second := random("--no-cache")
	if second == first {
		t.Error("--no-cache did not run the step")
	}
	if again := random(); again != second {
		t.Errorf("a later build sees %q, want what --no-cache made: %q", again, second)
	}
}

func TestSecretsAndSSHStayOut(t *testing.T) {
	d := startDaemon(t)
	bb := busyboxContext(t)
	dir := write(t, map[string]string{
		"Dockerfile": base + `RUN --mount=type=secret,id=tok,required=true --mount=type=secret,id=env,env=FROM_ENV \
  cat /run/secrets/tok | wc -c > /length; echo ${#FROM_ENV} > /envlength; stat -c %a /run/secrets/tok > /mode
RUN ls /run /run/secrets > /after 2>&1 || true
RUN --mount=type=secret,id=absent test ! -e /run/secrets/absent
`,
		"token": "hunter2hunter2",
	})
	t.Setenv("MY_SECRET", "from the environment")
	out := t.TempDir()
	r := d.build(bb, "--secret", "id=tok,src="+filepath.Join(dir, "token"), "--secret", "id=env,env=MY_SECRET", "-o", out, dir)
	for file, want := range map[string]string{"length": "14", "envlength": "20", "mode": "400"} {
		if got := strings.TrimSpace(read(t, out, file)); got != want {
			t.Errorf("%s: got %q, want %q", file, got, want)
		}
	}
	if strings.Contains(read(t, out, "after"), "tok") {
		t.Error("a secret was still there in the step after")
	}
	if grep, err := exec.Command("grep", "-rl", "hunter2hunter2", d.root).CombinedOutput(); err == nil {
		t.Errorf("the secret is on the daemon's disk: %s", grep)
	}
	if strings.Contains(r.all(), "hunter2") {
		t.Error("the secret was printed")
	}
	r = d.run("build", bb, "--progress", "plain", "-o", "type=cacheonly", "--no-cache", dir)
	if r.code != 1 || !strings.Contains(r.errOut, "secret tok: not found") {
		t.Errorf("a required secret that nobody gave: exit %d\n%s", r.code, r.errOut)
	}
}

func TestFilesWritten(t *testing.T) {
	d := startDaemon(t)
	bb := busyboxContext(t)
	dir := write(t, map[string]string{"Dockerfile": base})
	files := t.TempDir()
	iid, md := filepath.Join(files, "iid"), filepath.Join(files, "md.json")
	r := d.run("build", "-q", bb, "-t", "example.com/a:1", "--iidfile", iid, "--metadata-file", md, dir)
	if r.code != 0 {
		t.Fatalf("exit %d: %s", r.code, r.all())
	}
	id := read(t, iid)
	if !strings.HasPrefix(id, "sha256:") || strings.TrimSpace(r.out) != id {
		t.Errorf("iidfile %q, output %q", id, r.out)
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(read(t, md)), &m); err != nil {
		t.Fatal(err)
	}
	if m["image.name"] != "example.com/a:1" || m["containerimage.digest"] == "" {
		t.Errorf("metadata: %v", m)
	}
	// The image can be built on, without any registry.
	next := write(t, map[string]string{"Dockerfile": "FROM example.com/a:1\nRUN echo built on > /it\n"})
	out := t.TempDir()
	d.build("-o", out, next)
	if got := read(t, out, "it"); got != "built on\n" {
		t.Errorf("built on a local image: %q", got)
	}
	// Building again gives the same image, bit by bit.
	r = d.run("build", "-q", bb, "-t", "example.com/a:1", dir)
	if strings.TrimSpace(r.out) != id {
		t.Errorf("the same build, all cached, gave image %q, then %q", id, r.out)
	}
}

func TestContextFromStandardInput(t *testing.T) {
	d := startDaemon(t)
	bb := busyboxContext(t)
	out := t.TempDir()
	if r := d.runContext(t.Context(), []byte(base+"RUN echo stdin > /it\n"), "build", bb, "-o", out, "-"); r.code != 0 {
		t.Fatalf("Dockerfile on stdin: %s", r.all())
	}
	if got := read(t, out, "it"); got != "stdin\n" {
		t.Errorf("got %q", got)
	}
	dir := write(t, map[string]string{"Dockerfile": base + "COPY sub/f /f\n", "sub/f": "in a tar"})
	for _, args := range [][]string{{"-cf", "-"}, {"-czf", "-"}, {"-cJf", "-"}} {
		tarball, err := exec.Command("tar", append(args, "-C", dir, ".")...).Output()
		if err != nil {
			t.Fatal(err)
		}
		if r := d.runContext(t.Context(), tarball, "build", bb, "-o", out, "-"); r.code != 0 {
			t.Fatalf("tar %v on stdin: %s", args, r.all())
		}
		if got := read(t, out, "f"); got != "in a tar" {
			t.Errorf("tar %v: got %q", args, got)
		}
	}
	// The Dockerfile from stdin, the context from a directory.
	if r := d.runContext(t.Context(), []byte(base+"COPY sub/f /g\n"), "build", bb, "-f", "-", "-o", out, dir); r.code != 0 {
		t.Fatalf("-f -: %s", r.all())
	}
	if got := read(t, out, "g"); got != "in a tar" {
		t.Errorf("-f -: got %q", got)
	}
}

func TestInterruptCancelsAndDaemonStaysHealthy(t *testing.T) {
	d := startDaemon(t)
	bb := busyboxContext(t)
	marker := "sleep 31415"
	dir := write(t, map[string]string{"Dockerfile": base + "RUN " + marker + "\n"})
	ctx, interrupt := context.WithCancel(t.Context())
	go func() {
		for len(processesNaming("sleep\x0031415")) == 0 && ctx.Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		interrupt()
	}()
	r := d.runContext(ctx, nil, "build", bb, "--progress", "plain", "-o", "type=cacheonly", dir)
	if r.code != 130 {
		t.Errorf("exit %d, want 130\n%s", r.code, r.all())
	}
	deadline := time.Now().Add(10 * time.Second)
	for len(processesNaming("sleep\x0031415")) > 0 {
		if time.Now().After(deadline) {
			t.Fatal("the step goes on after its build was interrupted")
		}
		time.Sleep(10 * time.Millisecond)
	}
	other := write(t, map[string]string{"Dockerfile": base + "RUN true\n"})
	d.build(bb, "-o", "type=cacheonly", other)
}
