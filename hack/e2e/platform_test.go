package e2e

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/platforms"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// tellSource is a program that says what it is, after a child of it did.
const tellSource = `package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
)

func main() {
	if len(os.Args) > 2 {
		child := exec.Command(os.Args[0], os.Args[1])
		if out, err := child.CombinedOutput(); err != nil {
			fmt.Fprintln(os.Stderr, err, string(out))
			os.Exit(3)
		}
	}
	f, err := os.OpenFile(os.Args[1], os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(4)
	}
	fmt.Fprintln(f, runtime.GOARCH)
}
`

// tell builds that program for architectures, as tell-ARCH in a new directory.
func tell(t *testing.T, archs ...string) string {
	t.Helper()
	dir := write(t, map[string]string{"main.go": tellSource, "go.mod": "module tell\n\ngo 1.26\n"})
	for _, arch := range archs {
		cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", "tell-"+arch, ".")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build for %s: %v\n%s", arch, err, out)
		}
	}
	return dir
}

// needEmulator has the kernel know qemu's emulator of an architecture, as Debian names it, or skips. A host with an init system has
// done so itself.
func needEmulator(t *testing.T, program, qemu string) {
	t.Helper()
	need(t)
	scratch := filepath.Join(t.TempDir(), "x")
	if exec.Command(program, scratch).Run() == nil {
		return
	}
	need(t, "update-binfmts")
	const misc = "/proc/sys/fs/binfmt_misc"
	if _, err := os.Stat(misc + "/register"); err != nil {
		if out, err := exec.Command("mount", "-t", "binfmt_misc", "binfmt_misc", misc).CombinedOutput(); err != nil {
			t.Skipf("this kernel has no binfmt_misc: %s", out)
		}
	}
	if out, err := exec.Command("update-binfmts", "--enable", qemu).CombinedOutput(); err != nil {
		t.Skipf("%s cannot be registered: %s", qemu, out)
	}
	if out, err := exec.Command(program, scratch).CombinedOutput(); err != nil {
		t.Skipf("this host cannot emulate with %s: %v: %s", qemu, err, out)
	}
}

func TestSeveralPlatformsAtOnce(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("written for a host of amd64")
	}
	dir := tell(t, "amd64", "arm64")
	needEmulator(t, filepath.Join(dir, "tell-arm64"), "qemu-aarch64")
	dockerfile := `FROM scratch
ARG TARGETPLATFORM TARGETARCH BUILDPLATFORM
COPY tell-$TARGETARCH /tell
WORKDIR /$TARGETPLATFORM/on/$BUILDPLATFORM
RUN ["/tell", "/arch", "child"]
`
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o600); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t)
	var names []string
	for _, p := range d.worker().Platforms {
		names = append(names, platforms.Format(p))
	}
	if !slices.Contains(names, "linux/arm64") || names[0] != "linux/amd64" {
		t.Errorf("platforms of the worker: %v", names)
	}
	out := t.TempDir()
	d.build("--platform", "linux/amd64,linux/arm64", "-o", filepath.Join(out, "files"), "-o", "type=tar,dest="+filepath.Join(out, "files.tar"),
		"-o", "type=oci,dest="+filepath.Join(out, "oci.tar"), "-t", "several:1", dir)
	for _, arch := range []string{"amd64", "arm64"} {
		if got := read(t, out, "files", "linux_"+arch, "arch"); got != arch+"\n"+arch+"\n" {
			t.Errorf("%s: a step ran on %q", arch, got)
		}
		if _, err := os.Stat(filepath.Join(out, "files", "linux_"+arch, "linux", arch, "on", "linux", "amd64")); err != nil {
			t.Errorf("TARGETPLATFORM and BUILDPLATFORM: %v", err)
		}
	}
	inTar := tarFiles(t, filepath.Join(out, "files.tar"))
	if string(inTar["linux_arm64/arch"]) != "arm64\narm64\n" || string(inTar["linux_amd64/arch"]) != "amd64\namd64\n" {
		t.Errorf("the tar holds %d files, and not one directory for each platform", len(inTar))
	}
	checkIndex(t, tarFiles(t, filepath.Join(out, "oci.tar")))
}

// checkIndex looks for an index of two platforms, each with its own config.
func checkIndex(t *testing.T, files map[string][]byte) {
	t.Helper()
	blob := func(desc ocispecs.Descriptor, to any) {
		t.Helper()
		if err := json.Unmarshal(files["blobs/sha256/"+desc.Digest.Encoded()], to); err != nil {
			t.Fatalf("%s: %v", desc.Digest, err)
		}
	}
	var top, index ocispecs.Index
	if err := json.Unmarshal(files["index.json"], &top); err != nil || len(top.Manifests) != 1 {
		t.Fatalf("index.json: %v, %s", err, files["index.json"])
	}
	blob(top.Manifests[0], &index)
	var found []string
	for _, m := range index.Manifests {
		var manifest ocispecs.Manifest
		var config ocispecs.Image
		blob(m, &manifest)
		if m.Annotations["vnd.docker.reference.type"] != "" {
			continue // an attestation
		}
		blob(manifest.Config, &config)
		if m.Platform == nil || m.Platform.Architecture != config.Architecture {
			t.Errorf("manifest says %v, config %s", m.Platform, config.Architecture)
		}
		found = append(found, config.OS+"/"+config.Architecture)
	}
	if !slices.Equal(found, []string{"linux/amd64", "linux/arm64"}) {
		t.Errorf("index of %v", found)
	}
}

func tarFiles(t *testing.T, path string) map[string][]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files := map[string][]byte{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[strings.TrimPrefix(h.Name, "./")], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

// unknownPlatform is one that nothing on this host runs.
func unknownPlatform(t *testing.T, d *daemon, among ...string) string {
	t.Helper()
	known := d.worker().Platforms
	for _, arch := range among {
		if !slices.ContainsFunc(known, func(p ocispecs.Platform) bool { return p.Architecture == arch }) {
			return arch
		}
	}
	t.Skipf("this host emulates all of %v", among)
	return ""
}

func TestStepOfAPlatformWithoutEmulator(t *testing.T) {
	d := startDaemon(t)
	arch := unknownPlatform(t, d, "s390x", "ppc64le", "riscv64", "mips64le")
	dir := write(t, map[string]string{"tell": "\x7fELF of another kind", "Dockerfile": "FROM scratch\nCOPY --chmod=755 tell /tell\n\nRUN [\"/tell\"]\n"})
	r := d.run("build", "--progress", "plain", "--platform", "linux/"+arch, "-o", "type=cacheonly", dir)
	for _, want := range []string{"this host runs no programs for linux/" + arch, "apt-get install qemu-user-static", "Dockerfile:4"} {
		if r.code == 0 || !strings.Contains(r.all(), want) {
			t.Errorf("no %q in (exit %d):\n%s", want, r.code, r.all())
		}
	}
	// A step that starts only the host's programs does well whatever its platform is called.
	d.build(busyboxContext(t), "--platform", "linux/"+arch, "-o", "type=cacheonly", write(t, map[string]string{"Dockerfile": base + "RUN true\n"}))
}

func TestEmulatorThatTheKernelDoesNotKnow(t *testing.T) {
	need(t, "qemu-riscv64-static")
	emulators := t.TempDir()
	static, err := exec.LookPath("qemu-riscv64-static")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(static, filepath.Join(emulators, "buildkit-qemu-riscv64")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", emulators+":"+os.Getenv("PATH"))
	d := startDaemon(t, "--oci-worker-platform", "linux/amd64")
	unknownPlatform(t, d, "riscv64")
	dir := tell(t, "riscv64")
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nCOPY tell-riscv64 /tell\nRUN [\"/tell\", \"/arch\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	d.build("--platform", "linux/riscv64", "-o", out, dir)
	if got := read(t, out, "arch"); got != "riscv64\n" {
		t.Errorf("got %q", got)
	}
	if _, err := os.Stat(filepath.Join(out, "dev", ".buildkit_qemu_emulator")); err == nil {
		t.Error("the emulator's mount point is in the result")
	}
}

func TestConfiguredPlatformsComeFirst(t *testing.T) {
	d := startDaemon(t, "--config", configFile(t, "[worker.oci]\nplatforms = [\"linux/s390x\", \"linux/"+runtime.GOARCH+"\"]\n"))
	var names []string
	for _, p := range d.worker().Platforms {
		names = append(names, platforms.Format(p))
	}
	if len(names) < 2 || names[0] != "linux/s390x" || names[1] != "linux/"+runtime.GOARCH {
		t.Errorf("got %v", names)
	}
	out := filepath.Join(t.TempDir(), "out")
	d.build("-o", "type=oci,dest="+out, write(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"}))
	found := false
	for name, b := range tarFiles(t, out) {
		found = found || strings.HasPrefix(name, "blobs/") && strings.Contains(string(b), `"architecture":"s390x"`)
	}
	if !found {
		t.Error("an image that was built for no platform is not of the first configured one")
	}
}
