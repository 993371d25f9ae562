package ops

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/moby/buildkit/client/llb"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/slipwaybuild/slipway/solver/executor"
	"golang.org/x/sys/unix"
)

// A step runs for real: on a composed root, with a file of another input, and what it wrote is there.
func TestExecWithARuntime(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to run containers")
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skipf("needs a static busybox: %v", err)
	}
	e := newEngine(t)
	x, err := executor.New(executor.Options{Store: e.store, Root: t.TempDir()})
	if err != nil {
		t.Skipf("needs an OCI runtime: %v", err)
	}
	t.Cleanup(func() {
		if c, ok := any(x).(interface{ Close() error }); ok {
			if err := c.Close(); err != nil {
				t.Errorf("close executor: %v", err)
			}
		}
	})
	e.f.exec = x
	e.src.set("base", file{path: "bin/"}, file{path: "bin/busybox", mode: 0o755, data: string(busybox)},
		file{path: "bin/sh", mode: unix.S_IFLNK | 0o777, data: "busybox"}, file{path: "gone", data: "x"})
	e.src.set("ctx", file{path: "in/"}, file{path: "in/f", data: "from the context"})
	s := mem("base").
		File(llb.Copy(mem("ctx"), "/in/f", "/copied")).
		Run(llb.Args([]string{"/bin/sh", "-c", "busybox cat /copied /m/f > /out; busybox rm /gone; echo said"}),
			llb.AddMount("/m", mem("ctx"), llb.Readonly, llb.SourcePath("/in"))).Root()
	r := e.mustBuild(s)
	if got := e.read(r, "/out"); got != "from the contextfrom the context" {
		t.Errorf("out = %q", got)
	}
	for _, p := range []string{"gone", "m"} {
		if _, err := e.f.StatFile(t.Context(), RefOf(r), nil, gwclient.StatRequest{Path: p}); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", p, err)
		}
	}
	_, err = e.build(mem("base").Run(llb.Args([]string{"/bin/sh", "-c", "exit 7"})).Root(), LoadOptions{})
	if err == nil || !strings.HasSuffix(err.Error(), `process "/bin/sh -c exit 7" did not complete successfully: exit code: 7`) {
		t.Errorf("error %v", err)
	}
}
