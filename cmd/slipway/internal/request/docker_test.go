package request

import (
	"bytes"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// dockerd is a daemon of an API version.
type dockerd struct {
	minor   int
	slipway bool
}

func (d dockerd) Slipway() bool        { return d.slipway }
func (d dockerd) Knows(minor int) bool { return d.minor >= minor }

func prepareDocker(t *testing.T, o Options) (*DockerBuild, error) {
	t.Helper()
	b, err := PrepareDocker(t.Context(), o, strings.NewReader("FROM scratch\n"), io.Discard)
	if err == nil {
		t.Cleanup(func() { _ = b.Session.Close() })
	}
	return b, err
}

func TestDockerParameters(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("SOURCE_DATE_EPOCH", "")
	b, err := prepareDocker(t, Options{
		Context: "-", Tags: []string{"a", "b"}, BuildArgs: []string{"A=1"}, Labels: []string{"l=v"}, Target: "x", Platforms: []string{"linux/arm64"},
		AddHosts: []string{"h:1.2.3.4", "six=[::1]"}, Ulimits: []string{"nofile=1:2"}, ShmSize: "1k", Memory: "1m", MemorySwap: "-1",
		CPUShares: 1, CPUPeriod: 2, CPUQuota: 3, CPUSetCPUs: "0", CPUSetMems: "1", CgroupParent: "g", Network: "none", NoCache: true, Pull: true,
		CacheFrom: []string{"img"}, CacheTo: []string{"type=inline"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if w, err := b.Suit(dockerd{minor: 41}); err != nil || len(w) != 10 {
		t.Errorf("warnings %q, %v", w, err)
	}
	if w, err := b.Suit(dockerd{minor: 51}); err != nil || len(w) != 7 {
		t.Errorf("warnings of a newer daemon %q, %v", w, err)
	}
	want := map[string]string{
		"t": "a b", "buildargs": `{"A":"1","BUILDKIT_INLINE_CACHE":"1"}`, "labels": `{"l":"v"}`, "target": "x", "platform": "linux/arm64",
		"extrahosts": "h:1.2.3.4 six:::1", "ulimits": `[{"Name":"nofile","Hard":2,"Soft":1}]`, "shmsize": "1024", "memory": "1048576", "memswap": "-1",
		"cpushares": "1", "cpuperiod": "2", "cpuquota": "3", "cpusetcpus": "0", "cpusetmems": "1", "cgroupparent": "g", "networkmode": "none",
		"nocache": "1", "pull": "1", "cachefrom": `["img"]`, "remote": "client-session", "dockerfile": "Dockerfile", "session": b.Session.ID(),
	}
	for _, key := range slices.Sorted(maps.Keys(b.Query)) {
		if got := strings.Join(b.Query[key], " "); got != want[key] {
			t.Errorf("%s is %q, want %q", key, got, want[key])
		}
		delete(want, key)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
}

func TestDockerSuits(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	for _, test := range []struct {
		outputs       []string
		push          bool
		who           dockerd
		wrong, output string
	}{
		{nil, false, dockerd{minor: 39}, "", ""},
		{nil, false, dockerd{minor: 38}, "Docker 18.09 or newer", ""},
		{[]string{"type=image,name=x,push=false"}, false, dockerd{minor: 39}, "", ""},
		{[]string{out}, false, dockerd{minor: 39}, "Docker 19.03 or newer", ""},
		{[]string{out}, false, dockerd{minor: 40}, "", `[{"Type":"local","Attrs":{}}]`},
		{[]string{"type=tar,dest=" + out}, false, dockerd{minor: 40}, "", `[{"Type":"tar","Attrs":{}}]`},
		{[]string{"type=cacheonly"}, false, dockerd{minor: 40}, "", `[{"Type":"cacheonly","Attrs":{}}]`},
		{[]string{out, "type=cacheonly"}, false, dockerd{minor: 51}, "multiple outputs not supported", ""},
		{[]string{out, "type=cacheonly"}, false, dockerd{minor: 41, slipway: true}, "", `[{"Type":"local","Attrs":{}},{"Type":"cacheonly","Attrs":{}}]`},
		{[]string{"type=oci,dest=" + out}, false, dockerd{minor: 51}, "docker save", ""},
		{[]string{"type=image,compression=zstd"}, false, dockerd{minor: 51}, "beyond what Docker's API", ""},
		{nil, true, dockerd{minor: 51}, "use docker push", ""},
		{nil, true, dockerd{minor: 41, slipway: true}, "", `[{"Type":"image","Attrs":{"name":"t","push":"true"}}]`},
	} {
		b, err := prepareDocker(t, Options{Context: dir, Outputs: test.outputs, Tags: []string{"t"}, Push: test.push})
		if err != nil {
			t.Fatal(err)
		}
		_, err = b.Suit(test.who)
		if test.wrong != "" {
			if err == nil || !strings.Contains(err.Error(), test.wrong) {
				t.Errorf("%v at %+v: %v, want %q", test.outputs, test.who, err, test.wrong)
			}
			continue
		}
		if err != nil || b.Query.Get("outputs") != test.output {
			t.Errorf("%v at %+v: %s, %v, want %s", test.outputs, test.who, b.Query.Get("outputs"), err, test.output)
		}
	}
}

func TestDockerTarIsUploaded(t *testing.T) {
	gz := []byte{0x1f, 0x8b, 0x08, 0}
	b, err := PrepareDocker(t.Context(), Options{Context: "-", File: "sub/D"}, bytes.NewReader(gz), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Session.Close()
	if got, err := io.ReadAll(b.Upload); !bytes.Equal(got, gz) || err != nil || b.Query.Get("remote") != remoteUpload || b.Query.Get("dockerfile") != "sub/D" {
		t.Errorf("%v, %v, %v", got, err, b.Query)
	}
}
