package config

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	t.Parallel()
	c, warnings, err := Parse(`
root = "/var/lib/x"
insecure-entitlements = ["network.host", "device"]
[log]
format = "json"
[grpc]
address = ["unix:///a", "tcp://127.0.0.1:1234", "fd://"]
debugAddress = "0.0.0.0:6060"
[grpc.tls]
cert = "/c"
key = "/k"
ca = "/ca"
[history]
maxAge = 172800
[worker.oci]
maxUsedSpace = "10%"
minFreeSpace = "1GB"
gc = true
platforms = ["linux/arm64"]
networkMode = "bridge"
bridgeSubnet = "10.1.0.0/16"
[worker.oci.labels]
a = "b"
[[worker.oci.gcpolicy]]
all = true
filters = ["type==source.local"]
keepDuration = "48h"
reservedSpace = "40MB"
[[worker.oci.gcpolicy]]
keepBytes = 20
keepDuration = 3600
[registry."docker.io"]
mirrors = ["mirror.example.com"]
[registry."10.0.0.1:5000"]
http = true
[frontend."dockerfile.v0"]
enabled = true
[worker.containerd]
namespace = "x"
[worker.containerd.runtime]
name = "y"
[otel]
socketPath = "/x"
[cdi]
specDirs = ["/x"]
`)
	if err != nil {
		t.Fatal(err)
	}
	if c.History.MaxAge.Duration != 48*time.Hour || c.Worker.OCI.MaxUsedSpace.Of(1000) != 100 || !*c.Registries["10.0.0.1:5000"].PlainHTTP {
		t.Errorf("got %+v", c)
	}
	if p := c.Worker.OCI.GCPolicy; len(p) != 2 || p[0].KeepDuration.Duration != 48*time.Hour || p[0].ReservedSpace.Bytes != 40<<20 ||
		p[1].KeepBytes.Bytes != 20 || p[1].KeepDuration.Duration != time.Hour {
		t.Errorf("policies %+v", p)
	}
	if c.GRPC.TLS.CA != "/ca" || c.Worker.OCI.MinFreeSpace.Bytes != 1<<30 {
		t.Errorf("got %+v", c)
	}
	if len(c.CDI.SpecDirs) != 1 || c.CDI.SpecDirs[0] != "/x" {
		t.Errorf("directories of devices %q", c.CDI.SpecDirs)
	}
	if len(warnings) != 2 {
		t.Errorf("want one warning per table without meaning, got %q", warnings)
	}
}

func TestUnknownKeysAreIgnoredWithTheNearestName(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"rot = \"x\"":                          "rot is ignored, did you mean root?",
		"[worker.oci]\nmaxUsedSpac = 1":        "did you mean worker.oci.maxUsedSpace?",
		"completely-made-up-and-very-long = 1": "unknown configuration key completely-made-up-and-very-long is ignored",
		"[compactoin]\nenabled = true":         "did you mean compaction?",
	} {
		_, warnings, err := Parse(text)
		if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], want) {
			t.Errorf("Parse(%q): got %q, %v, want a warning with %q", text, warnings, err, want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"root = ": "line 1",
		"[worker.oci]\nmaxUsedSpace = \"10 bags\"":        "is no size",
		"insecure-entitlements = [\"root\"]":              "none of network.host",
		"[grpc]\naddress = [\"udp://1.2.3.4:5\"]":         "only unix://, tcp://",
		"[grpc]\naddress = [\"npipe:////./pipe/x\"]":      "named pipes",
		"[grpc]\naddress = [\"/run/x.sock\"]":             "did you mean unix:///run/x.sock?",
		"[grpc.tls]\ncert = \"/c\"":                       "go together",
		"[worker.oci]\nenabled = false":                   "only worker",
		"[worker.oci]\nplatforms = [\"a/b/c/d/e\"]":       "worker.oci.platforms",
		"[worker.oci]\nnetworkMode = \"lan\"":             "none of auto, bridge",
		"[worker.oci]\nbridgeSubnet = \"10.1\"":           "worker.oci.bridgeSubnet",
		"[worker.oci]\nbridgeName = \"abcdefghijklmnop\"": "longer than 15",
		"[[worker.oci.gcpolicy]]\nfilters = [\"type=\"]":  "rule 1: filters",
		"[system]\nmaxRegistryConcurrency = 0":            "greater than zero",
	} {
		_, _, err := Parse(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q): got error %v, want one with %q", text, err, want)
		}
	}
}

// docKeys are the keys that the first column of a table in the documentation names. A name that begins with a dot goes on from the
// one before it.
func docKeys(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for line := range strings.Lines(string(b)) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 || !strings.Contains(cells[1], "`") || strings.Contains(cells[1], "--") {
			continue
		}
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[1], -1) {
			key := m[1]
			if last := len(keys) - 1; strings.HasPrefix(key, ".") && last >= 0 {
				key = keys[last][:strings.LastIndex(keys[last], ".")] + key
			}
			keys = append(keys, key)
		}
	}
	return keys
}

func TestEveryKeyIsDocumented(t *testing.T) {
	t.Parallel()
	documented, known := docKeys(t), Keys()
	for _, k := range known {
		if !slices.Contains(documented, k) {
			t.Errorf("docs/configuration.md does not name %s", k)
		}
	}
	for _, k := range documented {
		if !slices.Contains(known, k) && !slices.Contains(foreign, k) {
			t.Errorf("docs/configuration.md names %s, which is no key", k)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("[registry.\"a\"]\nmirrors=[\"b\"]")
	f.Add("[worker.oci]\nmaxUsedSpace = \"10%\"")
	f.Add("[[worker.oci.gcpolicy]]\nfilters = [\"type==a\"]\nkeepDuration = \"1h\"")
	f.Fuzz(func(t *testing.T, text string) { _, _, _ = Parse(text) })
}
