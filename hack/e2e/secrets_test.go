package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// onDisk lists files of the daemon's, outside of its mounts, that hold a text.
func (d *daemon) onDisk(text string) string {
	d.t.Helper()
	out, _ := exec.Command("find", d.root, "-xdev", "-type", "f", "-exec", "grep", "-l", text, "{}", "+").Output() // grep's code says that there is none
	return string(out)
}

// layerFiles lists what is in the layers of an OCI archive that a build wrote.
func layerFiles(t *testing.T, archive string) []string {
	t.Helper()
	dir := t.TempDir()
	run(t, "tar", "-xf", archive, "-C", dir)
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	img, err := index.Image(m.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range layers {
		rc, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		for tr := tar.NewReader(rc); ; {
			h, err := tr.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, strings.Trim(strings.TrimPrefix(h.Name, "./"), "/"))
		}
		if err := rc.Close(); err != nil {
			t.Error(err)
		}
	}
	return names
}

// A secret is in memory for the length of its step, and leaves nothing: no value, no empty file where it was mounted, no directory above it.
func TestSecretsLeaveNothing(t *testing.T) {
	for _, how := range []string{"erofs", "unpacked"} {
		t.Run(how, func(t *testing.T) {
			d := withLayers(t, how)
			bb := busyboxContext(t)
			const value = "value-that-must-not-stay"
			dir := write(t, map[string]string{"Dockerfile": base + `RUN mkdir -p /there/before && echo kept > /there/before/file && echo under > /there/hidden
RUN --mount=type=secret,id=s --mount=type=secret,id=s,target=/new/deep/s --mount=type=secret,id=s,target=/there/before/s \
    --mount=type=secret,id=s,target=/there/hidden,uid=7,gid=8,mode=0040 --mount=type=secret,id=s,env=S \
  for f in /run/secrets/s /new/deep/s /there/before/s /there/hidden; do \
    awk -v f=$f '$2 == f { print $3 }' /proc/mounts; [ "$(cat $f)" = "$S" ] || echo "$f is wrong"; \
  done > /kinds; stat -c '%u %g %a' /there/hidden /run/secrets/s > /modes
RUN cat /there/hidden > /after; ls -d /new /run/secrets /there/before/s >> /after 2>&1; echo "[$S]" >> /after
`, "s": value})
			oci, out := filepath.Join(t.TempDir(), "oci"), t.TempDir()
			args := []string{bb, "--secret", "id=s,src=" + filepath.Join(dir, "s"), "-o", "type=oci,dest=" + oci, "-o", out, dir}
			d.build(args...)
			if got := read(t, out, "kinds"); got != strings.Repeat("tmpfs\n", 4) {
				t.Errorf("mounts are %q", got)
			}
			if got := read(t, out, "modes"); got != "7 8 40\n0 0 400\n" {
				t.Errorf("modes are %q", got)
			}
			if got := read(t, out, "after"); !strings.HasPrefix(got, "under\n") || strings.Count(got, "No such file") != 3 || !strings.HasSuffix(got, "[]\n") {
				t.Errorf("the step after saw %q", got)
			}
			for _, name := range layerFiles(t, oci) {
				if name == "new" || strings.HasPrefix(name, "new/") || strings.HasPrefix(name, "run/secrets") || name == "there/before/s" {
					t.Errorf("%s is in a layer", name)
				}
			}
			if !slices.Contains(layerFiles(t, oci), "kinds") {
				t.Error("the step's own file is in no layer")
			}
			if left := d.onDisk(value); left != "" {
				t.Errorf("the value is on the disk: %s", left)
			}

			// While a step runs, and after it failed.
			sleeping := write(t, map[string]string{"Dockerfile": base + "RUN --mount=type=secret,id=s,env=S --mount=type=secret,id=s,target=/new/s wc -c < /new/s; sleep 1000\n", "s": value})
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan result, 1)
			go func() {
				ended <- d.runContext(ctx, nil, "build", bb, "--secret", "id=s,src="+filepath.Join(sleeping, "s"), "-o", "type=cacheonly", sleeping)
			}()
			waitFor(t, "the step to run", func() bool { return len(processesNaming("sleep\x001000")) > 0 })
			if left := d.onDisk(value); left != "" {
				t.Errorf("while the step runs the value is on the disk: %s", left)
			}
			if mounts := read(t, "/proc/self/mountinfo"); !strings.Contains(mounts, " - tmpfs slipway ") {
				t.Error("no tmpfs holds it")
			}
			cancel()
			<-ended
			waitFor(t, "the memory to be given back", func() bool {
				for line := range strings.Lines(read(t, "/proc/self/mountinfo")) {
					if strings.Contains(line, d.root) && strings.Contains(line, " - tmpfs slipway ") {
						return false
					}
				}
				return true
			})
			failing := write(t, map[string]string{"Dockerfile": base + "RUN --mount=type=secret,id=s,env=S --mount=type=secret,id=s,target=/new/s cat /new/s > /dev/null; false\n", "s": value})
			if r := d.run("build", bb, "--secret", "id=s,src="+filepath.Join(failing, "s"), "-o", "type=cacheonly", failing); r.code != 1 {
				t.Errorf("exit %d", r.code)
			}
			if left := d.onDisk(value); left != "" {
				t.Errorf("after a failed step the value is on the disk: %s", left)
			}
		})
	}
}

// Where a secret comes from, when it is read, and what is wrong with it.
func TestSecretSources(t *testing.T) {
	d := startDaemon(t)
	bb := busyboxContext(t)
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for name, content := range map[string][]byte{"file": []byte("from the file"), "LOOKS_LIKE_ENV": []byte("file named so"), "most": bytes.Repeat([]byte("m"), 500<<10), "more": bytes.Repeat([]byte("m"), 500<<10+1), "binary": {0, 1, 0xff, '\n', 0}} {
		if err := os.WriteFile(path(name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("IN_ENV", "from the environment")
	t.Setenv("EMPTY", "")
	show := "RUN --mount=type=secret,id=x,required=true md5sum < /run/secrets/x | cut -d' ' -f1 > /sum; wc -c < /run/secrets/x > /size\n"
	t.Chdir(dir)
	for flag, want := range map[string]string{
		"id=x,src=file":                     "13",
		"id=x,source=" + path("file"):       "13",
		"id=x,type=file,src=LOOKS_LIKE_ENV": "13",
		"id=x,env=IN_ENV":                   "20",
		"id=x,type=env,src=IN_ENV":          "20",
		"type=env,id=x,env=IN_ENV":          "20",
		"id=x,src=most":                     "512000",
		"id=x,src=binary":                   "5",
		"id=x,env=EMPTY":                    "0",
	} {
		out := t.TempDir()
		d.build(bb, "--no-cache", "--secret", flag, "-o", out, dockerfile(t, show))
		if got := strings.TrimSpace(read(t, out, "size")); got != want {
			t.Errorf("%s: %s bytes, want %s", flag, got, want)
		}
	}
	// The id alone names a variable, or else a file.
	for id, want := range map[string]string{"IN_ENV": "20", "LOOKS_LIKE_ENV": "13"} {
		out := t.TempDir()
		d.build(bb, "--no-cache", "--secret", "id="+id, "-o", out, dockerfile(t, strings.ReplaceAll(strings.ReplaceAll(show, "id=x", "id="+id), "secrets/x", "secrets/"+id)))
		if got := strings.TrimSpace(read(t, out, "size")); got != want {
			t.Errorf("id=%s: %s bytes, want %s", id, got, want)
		}
	}
	for flag, want := range map[string]string{
		"id=x,src=more":          "secret x too big. max size 500KiB",
		"id=x,src=absent":        "stat absent: no such file",
		"src=file":               "secret missing ID",
		"id=x,type=vault,src=xx": `unsupported secret type "vault"`,
		"id=x,mode=0400":         "unexpected key 'mode'",
	} {
		if r := d.run("build", bb, "--secret", flag, "-o", "type=cacheonly", dockerfile(t, show)); r.code == 0 || !strings.Contains(r.errOut, want) {
			t.Errorf("%s: exit %d, want %q:\n%s", flag, r.code, want, r.errOut)
		}
	}
	// A pipe that nobody writes to: reading it would take forever.
	if err := syscall.Mkfifo(path("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	unused := dockerfile(t, "RUN --mount=type=secret,id=x true\n")
	d.build(bb, "--secret", "id=x,src=file", "-o", "type=cacheonly", unused)
	d.build(bb, "--secret", "id=x,src=fifo", "-o", "type=cacheonly", unused)
	// One that can be read only once serves every step.
	out := t.TempDir()
	twice := dockerfile(t, "RUN --mount=type=secret,id=x cat /run/secrets/x > /one\nRUN --mount=type=secret,id=x cat /run/secrets/x > /two\n")
	cmd := exec.Command("bash", "-c", fmt.Sprintf("exec %s --addr unix://%s build %s --secret id=x,src=<(echo once) -o %s %s", filepath.Join(binaries, "slipway"), d.socket, bb, out, twice))
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if one, two := read(t, out, "one"), read(t, out, "two"); one != "once\n" || two != "once\n" {
		t.Errorf("a secret from a pipe was %q and then %q", one, two)
	}
	// A file that goes away, or is not for this user, is named when it is needed.
	r := d.run("build", bb, "--secret", "id=x,src=/proc/self/mem", "-o", "type=cacheonly", "--no-cache", unused)
	if r.code != 1 || !strings.Contains(r.errOut, "secret x: read /proc/self/mem") {
		t.Errorf("exit %d:\n%s", r.code, r.errOut)
	}
}
