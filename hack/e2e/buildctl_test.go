package e2e

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
)

// buildctl returns the path of BuildKit's own client, built from our tools' module. Its dependencies are many and downloaded
// the first time, so this is for those who ask.
func buildctl(t *testing.T) string {
	t.Helper()
	if os.Getenv("SLIPWAY_E2E_TOOLS") != "1" {
		t.Skip("needs buildctl, which takes minutes to build the first time: set SLIPWAY_E2E_TOOLS=1")
	}
	return toolOf(t, "../tools/buildkit", "github.com/moby/buildkit/cmd/buildctl")
}

// toolOf builds a program of one of our tools' modules.
func toolOf(t *testing.T, module, pkg string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), filepath.Base(pkg))
	build := exec.Command("go", "build", "-C", module, "-o", path, pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return path
}

// dirWithBusybox is a directory with the host's static busybox and other files.
func dirWithBusybox(t *testing.T, files map[string]string) string {
	t.Helper()
	need(t, "busybox")
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	dir := write(t, files)
	copyFile(t, path, filepath.Join(dir, "busybox"))
	return dir
}

const drivenDockerfile = `FROM scratch AS base
COPY busybox /bin/busybox
RUN ["/bin/busybox", "sh", "-c", "echo hello > /hello"]
FROM scratch
COPY --from=base /hello /hello
`

func TestBuildctl(t *testing.T) {
	d := startDaemon(t)
	program := buildctl(t)
	run := func(stdin []byte, args ...string) result {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, program, append([]string{"--addr", "unix://" + d.socket}, args...)...)
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
			t.Fatal(err)
		}
		return r
	}
	ok := func(stdin []byte, args ...string) result {
		t.Helper()
		r := run(stdin, args...)
		if r.code != 0 {
			t.Fatalf("buildctl %s: exit %d\n%s\nthe daemon's log:\n%s", strings.Join(args, " "), r.code, r.all(), d.logText())
		}
		return r
	}
	dir := dirWithBusybox(t, map[string]string{"Dockerfile": drivenDockerfile})
	build := []string{"build", "--progress", "plain", "--frontend", "dockerfile.v0", "--local", "context=" + dir, "--local", "dockerfile=" + dir}

	out := t.TempDir()
	ok(nil, append(build, "--output", "type=local,dest="+out)...)
	if got := read(t, out, "hello"); got != "hello\n" {
		t.Errorf("the Dockerfile's output is %q", got)
	}
	if r := ok(nil, append(build, "--opt", "requestid=frontend.targets")...); !strings.Contains(r.out, "base") {
		t.Errorf("targets: %s", r.all())
	}

	def, err := llb.Scratch().File(llb.Mkfile("/f", 0o644, []byte("from stdin"))).Marshal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var stdin bytes.Buffer
	if err := llb.WriteTo(def, &stdin); err != nil {
		t.Fatal(err)
	}
	out = t.TempDir()
	ok(stdin.Bytes(), "build", "--progress", "plain", "--output", "type=local,dest="+out)
	if got := read(t, out, "f"); got != "from stdin" {
		t.Errorf("the definition's output is %q", got)
	}

	if r := ok(nil, "debug", "workers"); !strings.Contains(r.out, "linux/") {
		t.Errorf("workers: %s", r.all())
	}
	if r := ok(nil, "du"); !strings.Contains(r.out, "Total:") {
		t.Errorf("du: %s", r.all())
	}
	ok(nil, "prune")

	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"false\"]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := run(nil, build...); r.code != 1 || !strings.Contains(r.errOut, "3 | >>> RUN") || strings.Count(r.errOut, "failed to solve") != 1 {
		t.Errorf("a failing step: exit %d\n%s", r.code, r.errOut)
	}
}

// driver is BuildKit's Go client.
func (d *daemon) driver() *bkclient.Client {
	d.t.Helper()
	c, err := bkclient.New(d.t.Context(), "unix://"+d.socket)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		if err := c.Close(); err != nil {
			d.t.Errorf("close the client: %v", err)
		}
	})
	return c
}

// refOf asks for a state's reference.
func refOf(ctx context.Context, c gwclient.Client, st llb.State) (gwclient.Reference, error) {
	def, err := st.Marshal(ctx)
	if err != nil {
		return nil, err
	}
	res, err := c.Solve(ctx, gwclient.SolveRequest{Definition: def.ToPB()})
	if err != nil {
		return nil, err
	}
	return res.SingleRef()
}

// localOutput makes the option of an output directory.
func localOutput(dir string) []bkclient.ExportEntry {
	return []bkclient.ExportEntry{{Type: bkclient.ExporterLocal, OutputDir: dir}}
}
