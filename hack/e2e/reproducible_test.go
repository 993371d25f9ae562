package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckReproducible(t *testing.T) {
	d := startDaemon(t)
	bb := busyboxContext(t)
	check := func(dockerfile string, args ...string) result {
		t.Helper()
		dir := write(t, map[string]string{"a": "a", "Dockerfile": base + dockerfile})
		return d.run(append([]string{"build", "--progress", "plain", "--check-reproducible", bb, dir}, args...)...)
	}
	const random = `FROM base AS inner
RUN mkdir /d && touch -d @1000 /same && head -c 8 /dev/urandom > /d/random && touch -d @1000 /d/random /d
FROM base
COPY --from=inner /d /copied
RUN mkdir /$(head -c 8 /dev/urandom | md5sum | cut -c1-8)
`
	r := check(random, "--source-date-epoch", "1500000000")
	if r.code != 1 || !strings.Contains(r.out, "RUN mkdir /d") || !strings.Contains(r.out, "/d/random: content") || strings.Contains(r.out, "/same:") {
		t.Errorf("exit %d, said:\n%s\n%s", r.code, r.out, r.errOut)
	}
	if !strings.Contains(r.out, "COPY --from=inner") || !strings.Contains(r.out, "/copied/random: content") || !strings.Contains(r.out, "only in the first") {
		t.Errorf("said:\n%s", r.out)
	}
	if strings.Count(r.out, "/d/random: content") != 1 {
		t.Errorf("a path is named with more than the step that made it:\n%s", r.out)
	}
	if strings.Contains(r.out, "mtime") {
		t.Errorf("times that are set back are named:\n%s", r.out)
	}

	// Without a time to set them back to, times differ, in layers and in the config.
	const plain = "FROM base\nRUN mkdir /d && echo same > /d/f && ln /d/f /d/g\nCOPY a /a\n"
	r = check(plain)
	if r.code != 1 || !strings.Contains(r.out, "/d/f: mtime") || !strings.Contains(r.out, "config of the image") || !strings.Contains(r.out, "created") {
		t.Errorf("exit %d, said:\n%s\n%s", r.code, r.out, r.errOut)
	}
	md := filepath.Join(t.TempDir(), "md.json")
	r = check(plain, "--source-date-epoch", "1500000000", "--metadata-file", md, "-t", "example.com/app:1")
	if r.code != 0 || !strings.Contains(r.out, "reproducible") {
		t.Errorf("exit %d, said:\n%s\n%s", r.code, r.out, r.errOut)
	}
	if !strings.Contains(read(t, md), "containerimage.digest") {
		t.Error("the second build wrote no metadata")
	}
	if list := d.run("image", "ls").out; !strings.Contains(list, "example.com/app:1") {
		t.Errorf("the second build made no image:\n%s", list)
	}
	if r := d.run("build", "--check-reproducible", "-"); r.code != 125 {
		t.Errorf("a context that can be read once: exit %d", r.code)
	}
}

// However the time is given, and whoever builds with however many cores, from the cache or not, the image is the same. Files are
// larger than what is compressed at a time.
func TestReproducibleElsewhere(t *testing.T) {
	src := write(t, map[string]string{"big": strings.Repeat("0123456789abcdef\n", 1<<18), "Dockerfile": base + `FROM base
COPY big /
RUN mkdir /d && cat /big /big > /d/f && ln /d/f /d/g && ln -s g /d/h
WORKDIR /w/x
`})
	bb := busyboxContext(t)
	first := ""
	for _, machine := range []struct{ layers, cores string }{{"erofs", "1"}, {"erofs", "7"}, {"unpacked", "3"}} {
		config := filepath.Join(t.TempDir(), "slipwayd.toml")
		if err := os.WriteFile(config, []byte("[slipway]\nlayers = \""+machine.layers+"\"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("GOMAXPROCS", machine.cores)
		d := startDaemon(t, "--config", config)
		for how, args := range map[string][]string{
			"flag": {"--source-date-epoch=1500000000"}, "argument": {"--build-arg=SOURCE_DATE_EPOCH=1500000000"}, "environment": nil,
			"flag, again": {"--source-date-epoch=1500000000", "--no-cache"},
		} {
			if args == nil {
				t.Setenv("SOURCE_DATE_EPOCH", "1500000000")
			} else {
				t.Setenv("SOURCE_DATE_EPOCH", "")
			}
			md := filepath.Join(t.TempDir(), "md.json")
			d.build(append(args, bb, "--metadata-file", md, "-o", "type=oci,dest="+filepath.Join(t.TempDir(), "x.tar"), src)...)
			var m map[string]any
			if err := json.Unmarshal([]byte(read(t, md)), &m); err != nil {
				t.Fatal(err)
			}
			digest, _ := m["containerimage.digest"].(string)
			if first == "" {
				first = digest
			}
			if digest == "" || digest != first {
				t.Errorf("by %s on %v: %s, first it was %s", how, machine, digest, first)
			}
		}
	}
}
