package daemon

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipwaybuild/slipway/daemon/config"
	"github.com/slipwaybuild/slipway/solver/layers"
)

const gib = 1 << 30

func parsed(t *testing.T, text string) config.OCI {
	t.Helper()
	c, warnings, err := config.Parse("[worker.oci]\n" + text)
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	return c.Worker.OCI
}

func TestDiskLimit(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"":                           80 * gib,
		"maxUsedSpace = \"10%\"":     10 * gib,
		"gc = false":                 0,
		"gc = false\nmaxUsedSpace=5": 5,
		"reservedSpace = \"90%\"":    90 * gib,
		"gckeepstorage = \"90GB\"":   90 * gib,
		"[[worker.oci.gcpolicy]]\nmaxUsedSpace = \"1GB\"\nfilters = [\"type==source.local\"]":                          80 * gib,
		"[[worker.oci.gcpolicy]]\nmaxUsedSpace = \"1GB\"\n[[worker.oci.gcpolicy]]\nall = true\nmaxUsedSpace = \"3GB\"": 3 * gib,
	} {
		if got := diskLimit(100*gib, parsed(t, text)); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
	if got := diskLimit(1000*gib, config.OCI{}); got != 100*gib {
		t.Errorf("on a big disk: %d", got)
	}
}

func TestUsualRules(t *testing.T) {
	t.Parallel()
	rules := gcRules(100*gib, config.OCI{})
	if len(rules) != 4 {
		t.Fatalf("%d rules", len(rules))
	}
	if r := rules[0]; len(r.Filters) != 3 || r.KeepDuration != 48*time.Hour || r.MaxUsed != 512<<20 || r.Reserved != 0 {
		t.Errorf("%+v", r)
	}
	for i, r := range rules[1:] {
		if r.Reserved != 10*gib || r.MaxUsed != 80*gib || r.MinFree != 20*gib {
			t.Errorf("%+v", r)
		}
		if (r.KeepDuration == 60*24*time.Hour) != (i == 0) || r.All != (i == 2) {
			t.Errorf("rule %d: %+v", i+2, r)
		}
	}
	if got := gcRules(gib, parsed(t, "minFreeSpace = \"2GB\"")); got[2].MinFree != 2*gib || got[2].MaxUsed != 0 {
		t.Errorf("%+v", got)
	}
	if got := gcRules(gib, parsed(t, "gc = false")); got != nil {
		t.Errorf("%+v", got)
	}
}

func TestConfiguredRules(t *testing.T) {
	t.Parallel()
	got := gcRules(100*gib, parsed(t, `
[[worker.oci.gcpolicy]]
filters = ["type==regular"]
keepDuration = 3600
keepBytes = "10%"
[[worker.oci.gcpolicy]]
all = true
reservedSpace = 7
maxUsedSpace = 8
minFreeSpace = 9
`))
	want := []GCRule{{Filters: []string{"type==regular"}, KeepDuration: time.Hour, Reserved: 10 * gib}, {All: true, Reserved: 7, MaxUsed: 8, MinFree: 9}}
	if !slices.EqualFunc(got, want, func(a, b GCRule) bool {
		return slices.Equal(a.Filters, b.Filters) && a.All == b.All && a.KeepDuration == b.KeepDuration && a.Reserved == b.Reserved &&
			a.MaxUsed == b.MaxUsed && a.MinFree == b.MinFree
	}) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestCollectorFollowsRulesAfterBuildsAndNotTooOften(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var rounds []time.Duration
		var asked []layers.PruneOptions
		c, err := startCollector([]GCRule{{Filters: []string{"type==source.local"}, MaxUsed: 1}, {All: true, MaxUsed: 2, MinFree: 3, Reserved: 4}},
			func(_ context.Context, o layers.PruneOptions) error {
				if !o.All {
					rounds = append(rounds, time.Since(start))
				}
				asked = append(asked, o)
				return errors.New("told, not fatal")
			}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		for range 120 {
			c.want()
			time.Sleep(time.Second)
		}
		time.Sleep(time.Hour)
		if err := c.close(); err != nil {
			t.Error(err)
		}
		if want := []time.Duration{0, 601 * time.Second, 662 * time.Second, 723 * time.Second}; !slices.Equal(rounds, want) {
			t.Errorf("collected at %v, want %v", rounds, want)
		}
		if !asked[0].Filter(layers.Usage{Use: layers.UseLocal}) || asked[0].Filter(layers.Usage{Use: layers.UseGit}) {
			t.Error("the filter of the first rule does not choose by type")
		}
		if o := asked[1]; o.MaxUsed != 2 || o.MinFree != 3 || o.Reserved != 4 || !o.All {
			t.Errorf("%+v", o)
		}
	})
}

func TestCollectorRefusesBadFilters(t *testing.T) {
	t.Parallel()
	if _, err := startCollector([]GCRule{{Filters: []string{"type="}}}, nil, nil); err == nil {
		t.Error("a filter that cannot be read was taken")
	}
}
