package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestInAUserNamespace has a daemon that is root of a namespace with one user only: no EROFS, no control groups, no device nodes.
func TestInAUserNamespace(t *testing.T) {
	need(t, "runc", "busybox", "unshare")
	if out, err := exec.Command("unshare", "-Urm", "true").CombinedOutput(); err != nil {
		t.Skipf("this host lets nobody make user namespaces: %s", out)
	}
	dir := shortTemp(t)
	d := &daemon{t: t, dir: dir, socket: filepath.Join(dir, "s.sock"), root: filepath.Join(dir, "root")}
	wrapper := filepath.Join(dir, "slipwayd")
	script := "#!/bin/sh\nexec unshare -Urm -- " + filepath.Join(binaries, "slipwayd") + " \"$@\"\n"
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	d.program = wrapper
	d.start()
	t.Cleanup(func() {
		d.stop()
		d.checkNothingLeft()
	})
	out := filepath.Join(t.TempDir(), "out")
	r := d.run("build", "--progress", "plain", busyboxContext(t), "-o", out, write(t, map[string]string{"Dockerfile": base + `RUN mkdir -p /d/e; echo 1 > /d/e/f; echo 1 > /gone
RUN rm -r /d /gone; mkdir /d; echo 2 > /d/g
RUN id -u > /id; find /d > /found
`}))
	if r.code != 0 {
		if strings.Contains(d.logText(), "layers cannot be mounted here") || strings.Contains(r.all(), "no OCI runtime works") {
			t.Skipf("this kernel mounts too little in user namespaces:\n%s", d.logText())
		}
		t.Fatalf("exit %d\n%s\n%s", r.code, r.all(), d.logText())
	}
	if got := read(t, out, "found"); got != "/d\n/d/g\n" {
		t.Errorf("a later step sees %q", got)
	}
	if got := read(t, out, "id"); got != "0\n" {
		t.Errorf("steps are user %q", got)
	}
	for _, gone := range []string{"gone", "d/e"} {
		if _, err := os.Stat(filepath.Join(out, gone)); err == nil {
			t.Errorf("%s was removed by a step and is in the result", gone)
		}
	}
	if !strings.Contains(d.logText(), "steps run without control groups") {
		t.Error("the log does not say what is missing")
	}
}
