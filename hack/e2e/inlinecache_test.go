package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/slipwaybuild/slipway/solver/source/registry/registrytest"
)

// TestInlineCacheOfMounts builds an image of what steps wrote to a mount: of their two outputs it has only one.
func TestInlineCacheOfMounts(t *testing.T) {
	need(t, "runc", "busybox")
	reg := registrytest.New(t, registrytest.Options{})
	base := reg.Host + "/base:1"
	pushImage(t, base, imageOf(t, layerOf(t, busyboxTar(t))))
	target := reg.Host + "/app:1"
	root, image := llb.Image(base), llb.Scratch()
	var last llb.ExecState
	for _, cmd := range []string{"echo text > const", "head -c 16 /dev/urandom | od -x > unique; cp unique /root-unique"} {
		last = root.Run(llb.Args([]string{"/bin/sh", "-ec", cmd}), llb.Dir("/wd"))
		image = last.AddMount("/wd", image)
	}
	build := func(c *bkclient.Client, st llb.State, imports ...string) string {
		t.Helper()
		def, err := st.Marshal(t.Context(), llb.LinuxAmd64)
		if err != nil {
			t.Fatal(err)
		}
		opt := bkclient.SolveOpt{
			Exports:      []bkclient.ExportEntry{{Type: "image", Attrs: map[string]string{"name": target, "push": "true"}}},
			CacheExports: []bkclient.CacheOptionsEntry{{Type: "inline"}},
		}
		for _, ref := range imports {
			opt.CacheImports = append(opt.CacheImports, bkclient.CacheOptionsEntry{Type: "registry", Attrs: map[string]string{"ref": ref}})
		}
		resp, err := c.Solve(t.Context(), def, opt, nil)
		if err != nil {
			t.Fatal(err)
		}
		return resp.ExporterResponse["containerimage.digest"]
	}
	config := func() string {
		raw, err := pulled(t, target).RawConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	pruned := startDaemon(t).driver()
	first := build(pruned, image)
	raw := config()
	if err := pruned.Prune(t.Context(), nil, bkclient.PruneAll); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t)
	for what, c := range map[string]*bkclient.Client{"after pruning": pruned, "on a second machine": d.driver()} {
		if again := build(c, image, target); first != again {
			t.Errorf("another image was made %s:\n%s\nand\n%s", what, raw, config())
		}
	}
	// The output that no cache has is made when it is wanted, and what goes with it comes from the same run.
	imports := []bkclient.CacheOptionsEntry{{Type: "registry", Attrs: map[string]string{"ref": target}}}
	both := llb.Scratch().File(llb.Copy(last.Root(), "/root-unique", "/root")).File(llb.Copy(image, "/unique", "/mount"))
	for _, c := range []*bkclient.Client{startDaemon(t).driver(), d.driver()} {
		out := solve(t, c, both, bkclient.SolveOpt{CacheImports: imports})
		if one, other := read(t, out, "root"), read(t, out, "mount"); one != other || strings.TrimSpace(one) == "" {
			t.Errorf("%s has %q, %s has %q", filepath.Join(out, "root"), one, filepath.Join(out, "mount"), other)
		}
	}
}
