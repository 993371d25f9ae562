package config

import (
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	t.Parallel()
	c, warnings, err := Parse(`
root = "/var/lib/x"
insecure-entitlements = ["network.host"]
[log]
format = "json"
[history]
maxAge = 172800
[worker.oci]
maxUsedSpace = "10%"
gc = true
[worker.oci.labels]
a = "b"
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
`)
	if err != nil {
		t.Fatal(err)
	}
	if c.History.MaxAge.Duration != 48*time.Hour || c.Worker.OCI.MaxUsedSpace.Of(1000) != 100 || !*c.Registries["10.0.0.1:5000"].PlainHTTP {
		t.Errorf("got %+v", c)
	}
	if len(warnings) != 2 {
		t.Errorf("want one warning per table without meaning, got %q", warnings)
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"rot = \"x\"":                   "unknown key rot, did you mean root?",
		"[worker.oci]\nmaxUsedSpac = 1": "did you mean worker.oci.maxUsedSpace?",
		"root = ":                       "line 1",
		"[worker.oci]\nmaxUsedSpace = \"10 bags\"": "is no size",
		"insecure-entitlements = [\"root\"]":       "none of network.host",
		"[grpc]\naddress = [\"tcp://1.2.3.4:5\"]":  "only unix://",
		"completely-made-up-and-very-long = 1":     "unknown key completely-made-up-and-very-long",
	} {
		_, _, err := Parse(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q): got error %v, want one with %q", text, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("[registry.\"a\"]\nmirrors=[\"b\"]")
	f.Add("[worker.oci]\nmaxUsedSpace = \"10%\"")
	f.Fuzz(func(t *testing.T, text string) { _, _, _ = Parse(text) })
}
