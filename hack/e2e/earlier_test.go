package e2e

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/slipwaybuild/slipway/solver/source/registry/registrytest"
)

var buildLine = regexp.MustCompile(`(?m)^build ([0-9a-z]{25})$`)

// buildID is the id that slipway build showed.
func buildID(t *testing.T, r result) string {
	t.Helper()
	m := buildLine.FindStringSubmatch(r.errOut)
	if m == nil {
		t.Fatalf("no id of the build in:\n%s", r.errOut)
	}
	return m[1]
}

// ranWord is what a step of a test says when it runs.
const ranWord = "this-step-ran"

// What a build made can be written again, also by another daemon over the same root, and nothing is run for it.
func TestOutputsOfEarlierBuilds(t *testing.T) {
	d := startDaemon(t)
	reg := registrytest.New(t, registrytest.Options{})
	dir := write(t, map[string]string{"Dockerfile": base + `FROM base
RUN echo ` + ranWord + ` && echo made > /made && ln /made /linked
ENV A=b
ENTRYPOINT ["/bin/sh"]
`})
	bb := busyboxContext(t)
	built := d.build(bb, "--provenance", "mode=max", "-o", "type=cacheonly", dir)
	id := buildID(t, built)
	if !strings.Contains(built.all(), ranWord) {
		t.Fatalf("the step did not run:\n%s", built.all())
	}
	mustRun := func(args ...string) result {
		t.Helper()
		r := d.run(args...)
		if r.code != 0 {
			t.Fatalf("slipway %s: exit %d\n%s", strings.Join(args, " "), r.code, r.all())
		}
		if strings.Contains(r.all(), ranWord) {
			t.Errorf("slipway %s ran a step:\n%s", strings.Join(args, " "), r.all())
		}
		return r
	}
	d.stop()
	d.start()

	mustRun("push", id, reg.Host+"/app:1", reg.Host+"/other:2")
	idx, err := remote.Index(tag(t, reg.Host+"/app:1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(idx); err != nil {
		t.Errorf("what was pushed: %v", err)
	}
	if m, err := idx.IndexManifest(); err != nil || len(m.Manifests) != 2 || m.Manifests[1].Annotations["vnd.docker.reference.type"] != "attestation-manifest" {
		t.Errorf("what was attested is not there: %v, %v", m, err)
	}
	if _, err := remote.Index(tag(t, reg.Host+"/other:2")); err != nil {
		t.Error(err)
	}

	out := t.TempDir()
	mustRun("export", id[:8], "-o", filepath.Join(out, "tree"), "-o", "type=oci,dest="+filepath.Join(out, "oci.tar"), "-t", "example.com/a:1")
	if got := read(t, out, "tree", "linked"); got != "made\n" {
		t.Errorf("the tree has %q", got)
	}
	if names := tarNames(t, filepath.Join(out, "oci.tar")); !names["oci-layout"] || !names["index.json"] {
		t.Errorf("the archive has %v", names)
	}

	mustRun("export", id, "-t", "example.com/kept:1")
	mustRun("image", "tag", "example.com/kept:1", "example.com/again:2")
	list := mustRun("image", "ls").out
	if !strings.Contains(list, "example.com/kept:1") || !strings.Contains(list, "example.com/again:2") {
		t.Errorf("images:\n%s", list)
	}
	var inspected []struct{ Config struct{ Env []string } }
	if err := json.Unmarshal([]byte(mustRun("image", "inspect", "example.com/again:2").out), &inspected); err != nil {
		t.Fatal(err)
	}
	if len(inspected) != 1 || !strings.Contains(strings.Join(inspected[0].Config.Env, " "), "A=b") {
		t.Errorf("inspected: %v", inspected)
	}
	mustRun("image", "rm", "example.com/again:2", "example.com/kept:1")
	if list := mustRun("image", "ls").out; strings.Contains(list, "example.com") {
		t.Errorf("images after they were removed:\n%s", list)
	}

	// An image of a build is the one that the build would have pushed.
	plain := d.build(bb, "--provenance", "false", "-o", "type=image,name="+reg.Host+"/direct:1,push=true", dir)
	mustRun("push", buildID(t, plain), reg.Host+"/later:1")
	direct, err := remote.Head(tag(t, reg.Host+"/direct:1"))
	if err != nil {
		t.Fatal(err)
	}
	later, err := remote.Head(tag(t, reg.Host+"/later:1"))
	if err != nil {
		t.Fatal(err)
	}
	if direct.Digest != later.Digest {
		t.Errorf("pushed by the build %s, later %s", direct.Digest, later.Digest)
	}

	if r := d.run("push", "nosuchbuild", reg.Host+"/x:1"); r.code != 1 || !strings.Contains(r.errOut, "no such build") {
		t.Errorf("an unknown build: exit %d\n%s", r.code, r.all())
	}
	if r := d.run("push", id, "UPPER:1"); r.code != 1 || !strings.Contains(r.errOut, "UPPER") {
		t.Errorf("a bad name: exit %d\n%s", r.code, r.all())
	}
	if r := d.run("push", id); r.code != 125 {
		t.Errorf("no name: exit %d\n%s", r.code, r.all())
	}
	// The image of the second build holds its layers, and the cache is told to forget them all the same.
	mustRun("prune", "--all")
	r := d.run("push", id, reg.Host+"/app:2")
	if r.code != 1 || !strings.Contains(r.errOut, "pruned") {
		t.Errorf("a result that was pruned: exit %d\n%s", r.code, r.all())
	}
	if _, err := remote.Head(tag(t, reg.Host+"/app:2")); err == nil {
		t.Error("a result that was pruned has a tag")
	}
}

// A failed output leaves a result that can still be written.
func TestPushAfterAFailedPush(t *testing.T) {
	d := startDaemon(t)
	reg := registrytest.New(t, registrytest.Options{})
	dir := write(t, map[string]string{"Dockerfile": base + "FROM base\nRUN echo " + ranWord + " && echo made > /made\n"})
	md := filepath.Join(t.TempDir(), "md.json")
	r := d.run("build", "--progress", "plain", busyboxContext(t), "--metadata-file", md, "-o", "type=image,push=true,name=127.0.0.1:1/app:1", dir)
	if r.code == 0 {
		t.Fatal("pushed to nowhere")
	}
	id := buildID(t, r)
	if r := d.run("push", id, reg.Host+"/app:1"); r.code != 0 || strings.Contains(r.all(), ranWord) {
		t.Fatalf("push: exit %d\n%s", r.code, r.all())
	}
	img, err := remote.Image(tag(t, reg.Host+"/app:1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img); err != nil {
		t.Error(err)
	}
}

func tarNames(t *testing.T, path string) map[string]bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	names := map[string]bool{}
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names[h.Name] = true
	}
}
