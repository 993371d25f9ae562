package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// mountDockerfile shows what its cache mounts hold, and adds to them.
const mountDockerfile = base + `FROM base
ARG WHO
RUN --mount=type=cache,target=/cache/one --mount=type=cache,id=two,target=/cache/two,sharing=locked \
  { ls -1 /cache/one /cache/two; } > /seen; [ -e /cache/one/big ] || head -c 12000000 /dev/urandom > /cache/one/big; \
  echo $WHO > /cache/one/$WHO && mkdir -p -m 700 /cache/two/$WHO && echo $WHO > /cache/two/$WHO/f && ln -sf f /cache/two/$WHO/l && sha256sum /cache/one/big > /sum
`

// Cache mounts go where their cache goes, and come to machines that have none. Only what is new is written.
func TestCacheMountsTravel(t *testing.T) {
	reg := startRegistry(t)
	bb := busyboxContext(t)
	for _, c := range []struct{ name, to, from string }{
		{"registry", "type=registry,mounts=all,ref=" + reg.host + "/m:c", "type=registry,ref=" + reg.host + "/m:c"},
		{"index", "type=registry,image-manifest=false,mounts=/cache/one;two,ref=" + reg.host + "/i:c", "type=registry,ref=" + reg.host + "/i:c"},
		{"directory", "type=local,mounts=all,dest=DIR", "type=local,src=DIR"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			to, from := strings.ReplaceAll(c.to, "DIR", dir), strings.ReplaceAll(c.from, "DIR", dir)
			src := write(t, map[string]string{"Dockerfile": mountDockerfile})
			run := func(d *daemon, who string, args ...string) (seen, sum string, r result) {
				t.Helper()
				out := t.TempDir()
				r = d.build(append(args, bb, "--build-arg", "WHO="+who, "-o", out, src)...)
				return read(t, out, "seen"), read(t, out, "sum"), r
			}
			a, b := startDaemon(t), startDaemon(t)
			_, sum, _ := run(a, "anna", "--cache-to", to)
			written := func() int64 { return treeSize(t, dir) }
			size := written()
			seen, brought, r := run(b, "bert", "--cache-from", from, "--cache-to", to)
			if !strings.Contains(seen, "anna") || !strings.Contains(seen, "big") || brought != sum {
				t.Errorf("the second machine saw %q, and %q is not %q\n%s", seen, brought, sum, r.all())
			}
			if strings.Count(r.all(), "brought cache mount") != 2 {
				t.Errorf("nothing says what was brought:\n%s", r.all())
			}
			if grown := written() - size; c.name == "directory" && (grown <= 0 || grown > 6<<20) {
				t.Errorf("12 MB are there already, and %d bytes more were written", grown)
			}
			// On a machine that has them, mounts stay as they are.
			seen, _, r = run(a, "carl", "--cache-from", from)
			if strings.Contains(seen, "bert") || strings.Contains(r.all(), "brought cache mount") {
				t.Errorf("the first machine saw %q\n%s", seen, r.all())
			}
			third := startDaemon(t)
			if seen, _, _ := run(third, "dora", "--cache-from", from); !strings.Contains(seen, "anna") || !strings.Contains(seen, "bert") {
				t.Errorf("the third machine saw %q", seen)
			}
			// Whoever ignores the cache gets nothing of it.
			fourth := startDaemon(t)
			if seen, _, _ := run(fourth, "emil", "--no-cache", "--cache-from", from); strings.Contains(seen, "anna") {
				t.Errorf("a build without cache saw %q", seen)
			}
			// A machine without the mounts writes the cache and leaves them there.
			empty := startDaemon(t)
			plain := write(t, map[string]string{"Dockerfile": base + "RUN echo plain > /x\n"})
			empty.build(bb, "--cache-to", strings.Replace(to, "mounts=all", "mounts=all;two", 1), "-o", "type=cacheonly", plain)
			fifth := startDaemon(t)
			if seen, _, _ := run(fifth, "fred", "--cache-from", from); !strings.Contains(seen, "bert") {
				t.Errorf("after somebody without mounts wrote, a machine saw %q", seen)
			}
		})
	}
}

// Who writes at the same time neither empties nor mixes up a mount; what cannot be read is a mount that begins empty.
func TestCacheMountsOfSeveralWriters(t *testing.T) {
	reg := startRegistry(t)
	bb := busyboxContext(t)
	ref := reg.host + "/m:c"
	src := write(t, map[string]string{"Dockerfile": base + `FROM base
ARG WHO
RUN --mount=type=cache,id=shared,target=/c [ ! -e /c/who ] || [ "$(sha256sum < /c/data)" = "$(cat /c/sum)" ] || exit 9; \
  head -c 3000000 /dev/urandom > /c/data && sha256sum < /c/data > /c/sum && echo $WHO > /c/who; cp /c/who /who
`})
	daemons := []*daemon{startDaemon(t), startDaemon(t)}
	var wg sync.WaitGroup
	for i, d := range daemons {
		wg.Go(func() {
			for n := range 3 {
				r := d.run("build", "--progress", "plain", bb, "--build-arg", fmt.Sprintf("WHO=%d-%d", i, n), "--cache-to", "type=registry,mounts=all,ref="+ref, "-o", "type=cacheonly", src)
				if r.code != 0 {
					t.Errorf("build %d of machine %d: exit %d\n%s", n, i, r.code, r.all())
				}
			}
		})
	}
	wg.Wait()
	third := startDaemon(t)
	r := third.build(bb, "--build-arg", "WHO=third", "--cache-from", "type=registry,ref="+ref, "-o", "type=cacheonly", src)
	if !strings.Contains(r.all(), "brought cache mount shared") {
		t.Errorf("nothing was brought:\n%s", r.all())
	}

	// Half evicted, it is a mount that begins empty.
	blobs := filepath.Join(reg.root, "docker/registry/v2/blobs")
	spoilt := 0
	err := filepath.WalkDir(blobs, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil && len(b) > 200<<10 && bytes.HasPrefix(b, []byte{0x28, 0xb5, 0x2f, 0xfd}) {
			spoilt++
			err = os.WriteFile(path, append(b[:len(b)-1], b[len(b)-1]+1), 0o600)
		}
		return err
	})
	if err != nil || spoilt == 0 {
		t.Fatalf("%d chunks were spoilt: %v", spoilt, err)
	}
	fourth := startDaemon(t)
	r = fourth.build(bb, "--build-arg", "WHO=fourth", "--cache-from", "type=registry,ref="+ref, "-o", "type=cacheonly", src)
	if !strings.Contains(r.all(), "cannot be brought from the cache") {
		t.Errorf("nothing says that the mount was spoilt:\n%s", r.all())
	}
}
