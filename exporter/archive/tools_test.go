package archive_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/slipwaybuild/slipway/exporter/archive"
	"github.com/slipwaybuild/slipway/exporter/internal/exportertest"
	"github.com/slipwaybuild/slipway/solver/layers/layerstest"
)

// tool runs a program that others wrote, and skips the test where it is not installed.
func tool(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return out
}

// What umoci unpacks, through skopeo and any kind of archive, is what the layers show when they are mounted.
func TestOthersUnpackTheSame(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	rich := b.Rich()
	want := b.Snapshot(rich)
	for _, c := range []struct{ typ, compression, transport string }{
		{archive.TypeOCI, "uncompressed", "oci-archive:"},
		{archive.TypeOCI, "gzip", "oci-archive:"},
		{archive.TypeOCI, "zstd", "oci-archive:"},
		{archive.TypeDocker, "uncompressed", "docker-archive:"},
		{archive.TypeDocker, "gzip", "docker-archive:"},
	} {
		t.Run(c.typ+" "+c.compression, func(t *testing.T) {
			f, answer := export(t, b, c.typ, map[string]string{"compression": c.compression, "name": "example.com/it:1"}, exportertest.Input(rich, config, nil))
			path := filepath.Join(t.TempDir(), "image.tar")
			b.OK(os.WriteFile(path, f.Bytes(), 0o600))
			var seen struct {
				Architecture string
				Layers       []string
			}
			b.OK(json.Unmarshal(tool(t, "skopeo", "inspect", c.transport+path), &seen))
			if seen.Architecture != "amd64" || len(seen.Layers) != 3 {
				t.Errorf("skopeo sees %+v of %v", seen, answer)
			}
			if c.compression == "zstd" {
				return // umoci does not know it
			}
			dir := filepath.Join(t.TempDir(), "layout")
			tool(t, "skopeo", "--insecure-policy", "copy", c.transport+path, "oci:"+dir+":it")
			bundle := filepath.Join(t.TempDir(), "bundle")
			tool(t, "umoci", "unpack", "--image", dir+":it", bundle)
			compare(t, want, layerstest.Snapshot(t, filepath.Join(bundle, "rootfs")))
		})
	}
}

func compare(t *testing.T, want, got map[string]string) {
	t.Helper()
	for name, line := range want {
		// Nothing in the layers says what the root is like.
		if got[name] != line && name != "." {
			t.Errorf("%s\n got %q\nwant %q", name, got[name], line)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s should not be there", name)
		}
	}
}
