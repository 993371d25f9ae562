package session_test

import (
	"os/exec"
	"strings"
	"testing"
)

// TestLinksLittle: every start of the command line client pays for what this package links.
func TestLinksLittle(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("the go command is not in PATH")
	}
	out, err := exec.Command("go", "list", "-deps", "github.com/slipwaybuild/slipway/session").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, pkg := range strings.Fields(string(out)) {
		for _, bad := range []string{"github.com/moby/", "github.com/containerd/", "github.com/docker/", "go.opentelemetry.io/", "github.com/sirupsen/"} {
			if strings.HasPrefix(pkg, bad) {
				t.Errorf("package session links %s", pkg)
			}
		}
	}
}
