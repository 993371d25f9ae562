package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	bkclient "github.com/moby/buildkit/client"
	"github.com/slipwaybuild/slipway/solver/layers/images/containerdtest"
	"github.com/slipwaybuild/slipway/solver/source/registry/registrytest"
)

// withContainerd starts a daemon that keeps its images in s.
func withContainerd(t *testing.T, s *containerdtest.Server, args ...string) *daemon {
	t.Helper()
	if shared != nil {
		t.Skip("this test is run with a containerd of its own, when the suite is not")
	}
	need(t, "runc", "busybox")
	d := &daemon{t: t, dir: shortTemp(t), args: args}
	d.socket, d.root = filepath.Join(d.dir, "s.sock"), filepath.Join(d.dir, "root")
	d.useContainerd(s)
	d.start()
	t.Cleanup(func() {
		d.stop()
		d.checkNothingLeft()
	})
	return d
}

// A host that no name server knows: what is named by it comes from the image store.
const nowhere = "registry.invalid"

// simple builds an image in two layers and returns what its file says.
func simple(d *daemon, name, text string, more ...string) {
	d.t.Helper()
	dir := write(d.t, map[string]string{"Dockerfile": "FROM scratch\nCOPY a /a\nCOPY b /sub/b\nCMD [\"/x\"]\n", "a": text, "b": "b"})
	d.build(append(more, "-t", name, dir)...)
}

// readImage builds from an image and returns its file.
func readImage(d *daemon, name string) string {
	d.t.Helper()
	out := d.t.TempDir()
	d.build("-o", out, write(d.t, map[string]string{"Dockerfile": "FROM " + name + "\nCOPY --from=" + name + " /a /copy\n"}))
	if a, b := read(d.t, out, "a"), read(d.t, out, "copy"); a != b {
		d.t.Errorf("the image's file is %q, its copy %q", a, b)
	}
	return read(d.t, out, "a")
}

func TestContainerd(t *testing.T) {
	s := newContainerd(t)
	for _, c := range []struct {
		name string
		run  func(*testing.T, *daemon)
	}{
		{"built images are there for others", testContainerdBuilt},
		{"unpacked when asked", testContainerdUnpack},
		{"others' images serve FROM", testContainerdImported},
		{"what others remove is gone", testContainerdRemoved},
		{"prune leaves images", testContainerdPrune},
		{"push", testContainerdPush},
		{"tags that move", testContainerdMoved},
		{"restart of the daemon", testContainerdDaemonRestart},
		{"two platforms", testContainerdPlatforms},
		{"the client's layers", testContainerdLayoutContext},
		{"workers are labelled", testContainerdLabels},
		{"builds at once", testContainerdAtOnce},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, withContainerd(t, s)) })
	}
}

// assertComplete fails the test if content of an image is missing.
func (d *daemon) assertComplete(name string) {
	d.t.Helper()
	for line := range strings.Lines(d.ctr("images", "check")) {
		if strings.HasPrefix(line, name+" ") {
			if !regexp.MustCompile(`complete \((\d+)/\d+\)`).MatchString(line) || strings.Contains(line, "incomplete") {
				d.t.Errorf("not whole: %s", line)
			}
			return
		}
	}
	d.t.Errorf("containerd has no image %s:\n%s", name, d.ctr("images", "ls"))
}

func testContainerdBuilt(t *testing.T, d *daemon) {
	need(t, "skopeo", "umoci")
	simple(d, "app:1", "hello")
	d.assertComplete("docker.io/library/app:1")
	simple(d, nowhere+"/zip:1", "zipped", "-o", "type=image,compression=gzip")
	d.assertComplete(nowhere + "/zip:1")
	for name, want := range map[string]string{"docker.io/library/app:1": "hello", nowhere + "/zip:1": "zipped"} {
		archive := filepath.Join(t.TempDir(), "x.tar")
		d.ctr("images", "export", archive, name)
		if got := read(t, unpackImage(t, "oci-archive:"+archive), "a"); got != want {
			t.Errorf("%s as containerd exports it: %q, want %q", name, got, want)
		}
	}
	// Its collector leaves what images need: a lease that ends makes it run.
	d.ctr("leases", "create", "--id", "x")
	d.ctr("leases", "delete", "--sync", "x")
	d.assertComplete("docker.io/library/app:1")
}

func testContainerdUnpack(t *testing.T, d *daemon) {
	before := d.ctr("snapshots", "ls")
	simple(d, nowhere+"/packed:1", "packed")
	if got := d.ctr("snapshots", "ls"); got != before {
		t.Errorf("unpacked without being asked:\n%s", got)
	}
	simple(d, nowhere+"/unpacked:1", "unpacked", "-o", "type=image,unpack=true")
	target := filepath.Join(t.TempDir(), "m")
	if out, err := exec.Command("mkdir", target).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := strings.Count(d.ctr("snapshots", "ls"), "Committed"); got != 2 {
		t.Errorf("%d snapshots for two layers:\n%s", got, d.ctr("snapshots", "ls"))
	}
	d.ctr("images", "mount", nowhere+"/unpacked:1", target)
	defer d.ctr("images", "unmount", "--rm", target)
	if got := read(t, target, "a") + read(t, target, "sub/b"); got != "unpackedb" {
		t.Errorf("a container would see %q", got)
	}
}

func testContainerdImported(t *testing.T, d *daemon) {
	archive := filepath.Join(t.TempDir(), "x.tar")
	simple(d, nowhere+"/other:1", "from elsewhere", "-o", "type=oci,dest="+archive)
	d.run("prune", "--all")
	d.ctr("images", "import", "--no-unpack", archive)
	if got := readImage(d, nowhere+"/other:1"); got != "from elsewhere" {
		t.Errorf("got %q", got)
	}
}

func testContainerdRemoved(t *testing.T, d *daemon) {
	simple(d, nowhere+"/gone:1", "here")
	if got := readImage(d, nowhere+"/gone:1"); got != "here" {
		t.Errorf("got %q", got)
	}
	d.ctr("images", "rm", "--sync", nowhere+"/gone:1")
	r := d.run("build", "--progress", "plain", "-o", "type=cacheonly", write(t, map[string]string{"Dockerfile": "FROM " + nowhere + "/gone:1\n"}))
	if r.code == 0 || !strings.Contains(r.errOut, nowhere) {
		t.Errorf("built from an image that was removed: exit %d\n%s", r.code, r.errOut)
	}
	// What is built again is there again.
	simple(d, nowhere+"/gone:1", "here")
	d.assertComplete(nowhere + "/gone:1")
}

func testContainerdPrune(t *testing.T, d *daemon) {
	simple(d, nowhere+"/kept:1", "kept")
	if r := d.run("prune", "--all"); r.code != 0 {
		t.Errorf("prune: exit %d\n%s", r.code, r.all())
	}
	// Nothing of ours keeps layers that containerd has.
	if size := treeSize(t, filepath.Join(d.root, "layers")); size > 1_500_000 {
		t.Errorf("after prune %d bytes of layers are left", size)
	}
	d.assertComplete(nowhere + "/kept:1")
	if got := readImage(d, nowhere+"/kept:1"); got != "kept" {
		t.Errorf("got %q", got)
	}
	if r := d.run("du"); r.code != 0 || !strings.Contains(r.out, "Total:") {
		t.Errorf("du: exit %d\n%s", r.code, r.all())
	}
}

func testContainerdPush(t *testing.T, d *daemon) {
	r := registrytest.New(t, registrytest.Options{})
	pushImage(t, r.Host+"/base:1", imageOf(t, layerOf(t, tarOf(t, tarReg("f", "in the base")))))
	src := write(t, map[string]string{"Dockerfile": "FROM " + r.Host + "/base:1\nCOPY a /a\n", "a": "pushed"})
	d.build("-t", r.Host+"/app:1", "--push", src)
	pulled(t, r.Host+"/app:1")
	d.assertComplete(r.Host + "/app:1")
	// Pushed by another.
	d.ctr("images", "tag", r.Host+"/app:1", r.Host+"/app:2")
	d.ctr("images", "push", "--plain-http", r.Host+"/app:2")
	pulled(t, r.Host+"/app:2")
}

func testContainerdMoved(t *testing.T, d *daemon) {
	simple(d, nowhere+"/moved:1", "one")
	simple(d, nowhere+"/moved:1", "two")
	if got := readImage(d, nowhere+"/moved:1"); got != "two" {
		t.Errorf("got %q", got)
	}
	if names := d.ctr("images", "ls", "-q"); strings.Count(names, "dangling@") != 1 {
		t.Errorf("the image that had the name is not kept without:\n%s", names)
	}
}

func testContainerdDaemonRestart(t *testing.T, d *daemon) {
	simple(d, nowhere+"/kept:1", "kept")
	d.kill()
	d.start()
	if got := readImage(d, nowhere+"/kept:1"); got != "kept" {
		t.Errorf("got %q", got)
	}
}

func testContainerdPlatforms(t *testing.T, d *daemon) {
	src := write(t, map[string]string{"Dockerfile": "ARG TARGETARCH\nFROM scratch\nARG TARGETARCH\nCOPY a-$TARGETARCH /a\n", "a-amd64": "amd64", "a-arm64": "arm64"})
	for _, unpack := range []string{"", ",unpack=true"} {
		d.build("--platform", "linux/amd64,linux/arm64", "-t", nowhere+"/both:1", "-o", "type=image"+unpack, src)
	}
	d.assertComplete(nowhere + "/both:1")
	if ls := d.ctr("images", "ls"); !strings.Contains(ls, "linux/amd64,linux/arm64") {
		t.Errorf("platforms:\n%s", ls)
	}
	// What is for another host is not unpacked here, and that is no error.
	d.build("--platform", "linux/s390x", "-t", nowhere+"/foreign:1", "-o", "type=image,unpack=true",
		write(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": "a"}))
	if n := strings.Count(d.ctr("snapshots", "ls"), "Committed"); n != 1 {
		t.Errorf("%d snapshots, want that of this host's platform", n)
	}
}

func testContainerdLayoutContext(t *testing.T, d *daemon) {
	archive := filepath.Join(t.TempDir(), "x.tar")
	simple(d, nowhere+"/layout:1", "in a layout", "-o", "type=oci,dest="+archive)
	d.run("prune", "--all")
	layout := unarchive(t, archive)
	d.build("--build-context", "laid=oci-layout://"+layout+":1", "-t", nowhere+"/on:1", write(t, map[string]string{"Dockerfile": "FROM laid\nLABEL a=b\n"}))
	d.assertComplete(nowhere + "/on:1")
	if got := readImage(d, nowhere+"/on:1"); got != "in a layout" {
		t.Errorf("got %q", got)
	}
}

// Some clients decide by these whether to load what was built.
func testContainerdLabels(t *testing.T, d *daemon) {
	c, err := bkclient.New(t.Context(), "unix://"+d.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }() // it was only asked
	workers, err := c.ListWorkers(t.Context())
	if err != nil || len(workers) != 1 {
		t.Fatalf("workers %v, %v", workers, err)
	}
	const prefix = "org.mobyproject.buildkit.worker.containerd."
	if l := workers[0].Labels; l[prefix+"namespace"] != d.namespace || !strings.Contains(d.ctr("version"), l[prefix+"uuid"]) || l[prefix+"uuid"] == "" {
		t.Errorf("labels %v", l)
	}
}

// Builds that store the same layers at the same time, compressed too, do so in turns.
func testContainerdAtOnce(t *testing.T, d *daemon) {
	src := write(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY big /\nCOPY a /a\n", "a": "same", "big": strings.Repeat("0123456789abcdef", 1<<17)})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			output := "type=image,unpack=true"
			if i%2 == 1 {
				output = "type=image,compression=gzip"
			}
			r := d.runContext(t.Context(), nil, "build", "--progress", "plain", "-t", fmt.Sprintf("%s/same:%d", nowhere, i), "-o", output, src)
			if r.code != 0 {
				t.Errorf("build %d: exit %d\n%s", i, r.code, r.all())
			}
		})
	}
	wg.Wait()
	for i := range 8 {
		d.assertComplete(fmt.Sprintf("%s/same:%d", nowhere, i))
	}
	if n := strings.Count(d.ctr("content", "ls"), "slipway.compressed="); n > 2 {
		t.Errorf("two layers were compressed %d times:\n%s", n, d.ctr("content", "ls"))
	}
	if left := d.ctr("content", "active"); strings.Count(left, "\n") > 1 {
		t.Errorf("writers are left:\n%s", left)
	}
}

// Containerd dies and comes back while the daemon is idle, and while a build is under way.
func TestContainerdRestarts(t *testing.T) {
	s := newContainerd(t)
	d := withContainerd(t, s)
	simple(d, nowhere+"/first:1", "first")
	restart := func() {
		t.Helper()
		if err := s.Stop(true); err != nil {
			t.Fatal(err)
		}
	}
	restart()
	if err := s.Run(); err != nil {
		t.Fatal(err)
	}
	if got := readImage(d, nowhere+"/first:1"); got != "first" {
		t.Errorf("got %q", got)
	}
	src := write(t, map[string]string{"Dockerfile": base + "RUN sleep 3; echo 27183 > /a\n"})
	ended := make(chan result, 1)
	go func() {
		ended <- d.runContext(t.Context(), nil, "build", "--progress", "plain", busyboxContext(t), "-t", nowhere+"/second:1", src)
	}()
	waitFor(t, "the step to run", func() bool { return len(processesNaming("sleep 3; echo 27183")) > 0 })
	restart()
	waitFor(t, "the step to end", func() bool { return len(processesNaming("sleep 3; echo 27183")) == 0 })
	if err := s.Run(); err != nil {
		t.Fatal(err)
	}
	if r := <-ended; r.code != 0 {
		t.Errorf("the build failed as containerd was away for a while: exit %d\n%s", r.code, r.all())
	}
	d.assertComplete(nowhere + "/second:1")
}

func TestContainerdNotThere(t *testing.T) {
	need(t)
	dir := shortTemp(t)
	start := func(args ...string) string {
		t.Helper()
		all := append([]string{"--addr", "unix://" + filepath.Join(dir, "s"), "--root", filepath.Join(dir, "root")}, args...)
		out, err := exec.CommandContext(t.Context(), filepath.Join(binaries, "slipwayd"), all...).CombinedOutput()
		if err == nil {
			t.Errorf("slipwayd %q started", args)
		}
		return string(out)
	}
	socket := filepath.Join(dir, "containerd.sock")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--containerd", socket}, "connect to containerd at " + socket},
		{[]string{"--containerd", "tcp://127.0.0.1:1"}, "not the path of a socket"},
		{[]string{"--containerd-namespace", "x"}, "--containerd"},
	} {
		if out := start(c.args...); !strings.Contains(out, c.want) {
			t.Errorf("%q: it does not say %q:\n%s", c.args, c.want, out)
		}
	}
}

// Several daemons can share one containerd, even a namespace; none takes for left behind what another one uses.
func TestTwoDaemonsOnOneContainerd(t *testing.T) {
	s := newContainerd(t)
	a, b := withContainerd(t, s), withContainerd(t, s)
	b.stop()
	b.args = []string{"--containerd", s.Address, "--containerd-namespace", a.namespace}
	b.namespace = a.namespace
	b.start()
	for i := range 3 {
		name := fmt.Sprintf("%s/shared:%d", nowhere, i)
		simple(a, name, "built by one")
		if got := readImage(b, name); got != "built by one" {
			t.Errorf("got %q", got)
		}
		b.stop()
		b.start()
		a.assertComplete(name)
	}
}
