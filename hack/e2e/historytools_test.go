package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// buildx returns a function that runs Docker's buildx against the daemon. Its module is big, so this is for those who ask.
func buildx(t *testing.T, d *daemon) func(args ...string) result {
	t.Helper()
	if os.Getenv("SLIPWAY_E2E_TOOLS") != "1" {
		t.Skip("needs buildx, which takes minutes to build the first time: set SLIPWAY_E2E_TOOLS=1")
	}
	program := toolOf(t, "../tools/buildx", "github.com/docker/buildx/cmd/buildx")
	env := append(os.Environ(), "BUILDX_CONFIG="+t.TempDir(), "DOCKER_CONFIG="+t.TempDir())
	run := func(args ...string) result { return runTool(t, env, program, args...) }
	if r := run("create", "--name", "s", "--driver", "remote", "--use", "unix://"+d.socket); r.code != 0 {
		t.Fatalf("buildx create: %s", r.all())
	}
	return run
}

func runTool(t *testing.T, env []string, program string, args ...string) result {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = env
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

// expect fails the test unless a program ended well and said each of want.
func expect(t *testing.T, r result, want ...string) {
	t.Helper()
	if r.code != 0 {
		t.Errorf("exit %d\n%s", r.code, r.all())
	}
	for _, w := range want {
		if !strings.Contains(r.all(), w) {
			t.Errorf("%q is not in\n%s", w, r.all())
		}
	}
}

const recordedDockerfile = `FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "echo", "said by the step"]
`

func TestBuildxHistory(t *testing.T) {
	d := startDaemon(t)
	buildx := buildx(t, d)
	dir := dirWithBusybox(t, map[string]string{"Dockerfile": recordedDockerfile, "bad": "FROM scratch\nCOPY nothing /x\n"})
	expect(t, buildx("inspect"), "Status:", "running", "Platforms:", "linux/")
	expect(t, buildx("build", "--provenance=false", "--output", "type=image,name=example.com/x:1", dir))
	if r := buildx("build", "--provenance=false", "-f", filepath.Join(dir, "bad"), dir); r.code == 0 {
		t.Error("a failing build succeeded")
	}
	expect(t, buildx("build", "--call", "outline", dir)) // which is not recorded
	var refs []string
	for line := range strings.Lines(buildx("history", "ls", "--format", "json").out) {
		var row struct{ Ref, Status string }
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatal(err)
		}
		refs = append(refs, row.Status+" "+filepath.Base(row.Ref))
	}
	if len(refs) != 2 || !strings.HasPrefix(refs[0], "Error ") || !strings.HasPrefix(refs[1], "Completed ") {
		t.Fatalf("history ls: %q", refs)
	}
	bad, good := strings.Fields(refs[0])[1], strings.Fields(refs[1])[1]

	expect(t, buildx("history", "ls", "--filter", "status=error"), bad)
	expect(t, buildx("history", "ls", "--filter", "startedAt>1h", "--filter", "status=completed"), good)
	expect(t, buildx("history", "logs", good), "said by the step")
	expect(t, buildx("history", "inspect", good), "Build Steps:", "application/vnd.oci.image.manifest.v1+json")
	expect(t, buildx("history", "inspect", bad), "2 | >>> COPY nothing /x", "Error:")
	expect(t, buildx("history", "inspect", "attachment", "--type", "application/vnd.oci.image.manifest.v1+json", good), `"layers"`)
	expect(t, buildx("history", "inspect", "attachment", "--type", "provenance", good), `"buildType"`, `"frontend": "dockerfile.v0"`)
	expect(t, buildx("history", "trace", good), `"operationName"`, "said by the step", "Control/Solve")
	archive := filepath.Join(t.TempDir(), "a.dockerbuild")
	expect(t, buildx("history", "export", "-o", archive, good))
	if info, err := os.Stat(archive); err != nil || info.Size() == 0 {
		t.Errorf("the exported record: %v", err)
	}
	expect(t, buildx("du"), "Total:")
	expect(t, buildx("du", "--verbose", "--filter", "type=source.local"), "source.local")
	expect(t, buildx("history", "rm", good))
	if r := buildx("history", "rm", good); r.code == 0 {
		t.Errorf("what is gone is removed again:\n%s", r.all())
	}
	expect(t, buildx("history", "rm", "--all"))
	if r := buildx("history", "ls", "--format", "json"); r.code != 0 || r.out != "" {
		t.Errorf("all is removed:\n%s", r.all())
	}
	expect(t, buildx("prune", "--force", "--max-used-space", "1GB"), "Total:")
	expect(t, buildx("prune", "--force", "--all"), "Total:")
}

func TestBuildctlHistory(t *testing.T) {
	d := startDaemon(t)
	program := buildctl(t)
	buildctl := func(args ...string) result {
		t.Helper()
		return runTool(t, os.Environ(), program, append([]string{"--addr", "unix://" + d.socket}, args...)...)
	}
	dir := dirWithBusybox(t, map[string]string{"Dockerfile": recordedDockerfile})
	expect(t, buildctl("build", "--frontend", "dockerfile.v0", "--local", "context="+dir, "--local", "dockerfile="+dir))
	expect(t, buildctl("debug", "histories"), "COMPLETE")
	ref := strings.TrimSpace(buildctl("debug", "histories", "--format", "{{.Record.Ref}}").out)
	expect(t, buildctl("debug", "logs", ref), "said by the step")
	digest := strings.TrimSpace(buildctl("debug", "histories", "--format", "{{.Record.Logs.Digest}}").out)
	expect(t, buildctl("debug", "get", digest), "said by the step")
	expect(t, buildctl("debug", "ctl", "--pin", ref))
	expect(t, buildctl("prune-histories"))
	expect(t, buildctl("debug", "histories"), ref, "*")
	// Clients have some seconds to hand over their spans; buildctl does not ask for the end of it, as buildx does.
	waitFor(t, "the trace", func() bool { return buildctl("debug", "logs", "--trace", ref).code == 0 })
	expect(t, buildctl("debug", "logs", "--trace", ref), "Control/Solve")
	expect(t, buildctl("debug", "ctl", "--delete", ref))
	if r := buildctl("debug", "histories"); strings.Contains(r.out, ref) {
		t.Errorf("it is still there:\n%s", r.all())
	}
	expect(t, buildctl("debug", "info"), "slipway")
	expect(t, buildctl("debug", "workers", "-v"), "Platforms:", "linux/")
	expect(t, buildctl("du", "--filter", "type==source.local", "-v"), "source.local")
	expect(t, buildctl("prune", "--keep-storage", "1000", "--all"), "Total:")
}
