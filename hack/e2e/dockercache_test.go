package e2e

import (
	"testing"

	"github.com/slipwaybuild/slipway/solver/source/registry/registrytest"
)

// A client that cannot say --cache-to asks with a build argument for a cache inside the image, and pushes the image afterwards.
func TestDockerInlineCache(t *testing.T) {
	c := sessionDocker(t)
	reg := registrytest.New(t, registrytest.Options{})
	ref := reg.Host + "/inline:1"
	dir := dirWithBusybox(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY busybox /bin/busybox\n" +
		"RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\nRUN true\nRUN head -c 16 /dev/urandom | od -x > /made\n"})
	first, second := t.TempDir(), t.TempDir()
	a := startDaemon(t)
	c.ok(t, a, nil, "build", "-t", ref, "--build-arg", "BUILDKIT_INLINE_CACHE=1", dir)
	c.ok(t, a, nil, "push", ref)
	c.ok(t, a, nil, "build", "-o", first, dir)
	b := startDaemon(t)
	r := c.ok(t, b, nil, "build", "--cache-from", ref, "-o", second, dir)
	if read(t, first, "made") != read(t, second, "made") {
		t.Errorf("the second machine made its own:\n%s", r.all())
	}
}
