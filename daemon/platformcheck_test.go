package daemon

import (
	"strings"
	"testing"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
)

func TestPlatformMismatch(t *testing.T) {
	for _, c := range []struct {
		asked, got string
		several    bool
		want       string
	}{
		{"linux/amd64", "linux/amd64", false, ""},
		{"linux/arm64/v8", "linux/arm64", false, ""},
		{"linux/amd64", "linux/arm64", false, `Requested platform "linux/amd64" does not match result platform "linux/arm64"`},
		{"linux/amd64,linux/arm64", "linux/amd64", false, "Multiple platforms requested but result is not multi-platform"},
		{"linux/amd64,linux/arm64", "linux/arm64,linux/amd64", true, ""},
		{"linux/amd64,linux/arm64", "linux/amd64,linux/s390x", true, "Requested platforms linux/amd64,linux/arm64 do not match result platforms linux/amd64,linux/s390x"},
		{"linux/amd64,linux/amd64", "linux/amd64", true, `Duplicate platform result requested "linux/amd64"`},
		{"nonsense/a/b/c/d", "linux/amd64", false, `Invalid platform result requested "nonsense/a/b/c/d"`},
	} {
		var ps exptypes.Platforms
		for _, name := range strings.Split(c.got, ",") {
			ps.Platforms = append(ps.Platforms, exptypes.Platform{ID: name, Platform: platforms.MustParse(name)})
		}
		if got := platformMismatch(c.asked, ps, c.several); got != c.want && (c.want == "" || !strings.HasPrefix(got, c.want)) {
			t.Errorf("asked %s, got %s: %q, want %q", c.asked, c.got, got, c.want)
		}
	}
}
