package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// An output that fails, wherever it fails, leaves nothing that looks like one, and what was there before is there still. The next one
// works.
func TestFailedOutputsLeaveNothing(t *testing.T) {
	d := startDaemon(t)
	src := write(t, map[string]string{
		"Dockerfile": "FROM scratch\nCOPY a b c d /\n", "a": strings.Repeat("a", 300<<10), "b": strings.Repeat("b", 300<<10),
		"c": strings.Repeat("c", 300<<10), "d": strings.Repeat("d", 300<<10),
	})
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("needs to mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	resize := func(size string) {
		t.Helper()
		if err := unix.Mount("tmpfs", disk, "tmpfs", unix.MS_REMOUNT, "size="+size); err != nil {
			t.Fatal(err)
		}
	}
	for _, typ := range []string{"tar", "oci", "docker", "local"} {
		t.Run(typ, func(t *testing.T) {
			out := filepath.Join(disk, typ)
			attrs := ",compression=uncompressed"
			if typ == "tar" || typ == "local" {
				attrs = ""
			}
			if typ == "local" {
				if err := os.Mkdir(out, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			before := out
			if typ == "local" {
				before = filepath.Join(out, "c")
			}
			if err := os.WriteFile(before, []byte("before"), 0o644); err != nil {
				t.Fatal(err)
			}
			for _, size := range []string{"64k", "200k", "400k", "800k", "1100k"} {
				resize(size)
				r := d.run("build", "--progress", "plain", "-t", "example.com/a:1", "-o", "type="+typ+",dest="+out+attrs, src)
				if r.code != 1 || !strings.Contains(r.errOut, "no space left on device") {
					t.Errorf("on a disk of %s: exit %d\n%s", size, r.code, r.all())
				}
				if typ != "local" {
					if got := read(t, out); got != "before" {
						t.Errorf("on a disk of %s, a file of %d bytes is there", size, len(got))
					}
					if names, err := os.ReadDir(disk); err != nil || len(names) != 1 {
						t.Errorf("on a disk of %s, what is left: %v, %v", size, names, err)
					}
					continue
				}
				// Files of a tree come one by one, each whole.
				names, err := os.ReadDir(out)
				if err != nil {
					t.Fatal(err)
				}
				for _, n := range names {
					whole := strings.Repeat(n.Name(), 300<<10)
					if got := read(t, out, n.Name()); got != whole && (n.Name() != "c" || got != "before") {
						t.Errorf("on a disk of %s, %s has %d bytes", size, n.Name(), len(got))
					}
				}
			}
			resize("8m")
			d.build("-t", "example.com/a:1", "-o", "type="+typ+",dest="+out+attrs, src)
			if typ == "local" {
				if got := read(t, out, "c"); got != strings.Repeat("c", 300<<10) {
					t.Errorf("the next one wrote %d bytes", len(got))
				}
			} else if names := tarNames(t, out); len(names) < 3 {
				t.Errorf("the next one wrote %v", names)
			}
			if err := os.RemoveAll(out); err != nil {
				t.Fatal(err)
			}
		})
	}
}
