package engineapi

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/system"
	"github.com/slipwaybuild/slipway/solver/executor"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func get(t *testing.T, url string) (int, string, http.Header) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b), res.Header
}

func TestBuilderVersionFollowsTheSettings(t *testing.T) {
	t.Parallel()
	var now Settings
	s, _ := newTestAPI(t, func(o *Options) { o.Settings = func() Settings { return now } })
	yes, no := true, false
	for _, test := range []struct {
		set  *bool
		want string
	}{{nil, "2"}, {&no, "1"}, {&yes, "2"}} {
		now.BuildKit = test.set
		if _, _, head := get(t, s.URL+"/_ping"); head.Get("Builder-Version") != test.want {
			t.Errorf("Builder-Version %q, want %q", head.Get("Builder-Version"), test.want)
		}
	}
}

func TestWhatThereIsNoneOf(t *testing.T) {
	t.Parallel()
	s, _ := newTestAPI(t)
	for path, want := range map[string]string{
		"/v1.41/containers/json?all=1": "[]",
		"/volumes":                     `{"Volumes":[],"Warnings":null}`,
		"/networks":                    "[]",
		"/plugins":                     "[]",
	} {
		if code, body, _ := get(t, s.URL+path); code != http.StatusOK || strings.TrimSpace(body) != want {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}
}

func TestInfo(t *testing.T) {
	t.Parallel()
	s, _ := newTestAPI(t)
	code, body, _ := get(t, s.URL+"/v1.41/info")
	var in system.Info
	if err := json.Unmarshal([]byte(body), &in); err != nil || code != http.StatusOK {
		t.Fatalf("%d %v %s", code, err, body)
	}
	if in.ServerVersion != "1.2.3" || in.OSType != "linux" || in.NCPU == 0 || in.MemTotal == 0 || in.KernelVersion == "" || in.OperatingSystem == "" ||
		in.IndexServerAddress != "https://index.docker.io/v1/" || in.DockerRootDir != "/var/lib/slipway" || in.Swarm.LocalNodeState != "inactive" {
		t.Errorf("%s", body)
	}
	if hub, plain := in.RegistryConfig.IndexConfigs["docker.io"], in.RegistryConfig.IndexConfigs["plain.example"]; !hub.Official || !hub.Secure ||
		hub.Mirrors[0] != "mirror.example" || plain.Secure {
		t.Errorf("%s", body)
	}
}

func TestInfoTellsLimits(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		limits   executor.Limits
		want     string
		warnings []string
	}{
		"all": {
			executor.Limits{CgroupVersion: 1, Memory: true, Swap: true, OOMKillDisable: true, KernelMemory: true, KernelMemoryTCP: true, CPUShares: true, CPUQuota: true, Cpuset: true, Pids: true},
			"cgroupfs 1 true true true true true true true true true true", []string{},
		},
		"some of v2": {
			executor.Limits{CgroupVersion: 2, Memory: true, CPUShares: true, CPUQuota: true, Pids: true},
			"cgroupfs 2 true false false false false true true true false true", []string{"WARNING: No swap limit support", "WARNING: No cpuset support"},
		},
		"none": {
			executor.Limits{}, "none " + cgroupVersion() + " false false false false false false false false false false",
			[]string{"WARNING: steps run without control groups: their resources cannot be limited"},
		},
	} {
		s, _ := newTestAPI(t, func(o *Options) { o.Engine = &fakeEngine{limits: c.limits} })
		_, body, _ := get(t, s.URL+"/v1.41/info")
		var in info
		if err := json.Unmarshal([]byte(body), &in); err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprintln(in.CgroupDriver, in.CgroupVersion, in.MemoryLimit, in.SwapLimit, in.OomKillDisable, in.KernelMemory, in.KernelMemoryTCP,
			in.CPUShares, in.CPUCfsPeriod, in.CPUCfsQuota, in.CPUSet, in.PidsLimit)
		if strings.TrimSpace(got) != c.want || !slices.Equal(in.Warnings, c.warnings) {
			t.Errorf("%s: %s, warnings %q", name, got, in.Warnings)
		}
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	e := &fakeEngine{}
	s, _ := newTestAPI(t, func(o *Options) { o.Engine = e })
	e.hub.Publish(events.ImageEventType, events.ActionTag, "sha256:a", map[string]string{"name": "a:1"})
	res, err := http.Get(s.URL + `/events?since=1&filters={"type":{"image":true},"event":{"tag":true,"delete":true}}`)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	next := func() (got event) {
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
		if err := json.Unmarshal(lines.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := next(); got.Action != "tag" || got.Status != "tag" || got.ID != "sha256:a" || got.Actor.Attributes["name"] != "a:1" {
		t.Errorf("%+v", got)
	}
	e.hub.Publish(events.BuilderEventType, events.ActionPrune, "", nil)
	e.hub.Publish(events.ImageEventType, events.ActionPull, "sha256:a", nil)
	e.hub.Publish(events.ImageEventType, events.ActionDelete, "sha256:b", nil)
	if got := next(); got.Action != "delete" || got.Actor.ID != "sha256:b" {
		t.Errorf("%+v", got)
	}
}

func TestEventsUntil(t *testing.T) {
	t.Parallel()
	e := &fakeEngine{}
	s, _ := newTestAPI(t, func(o *Options) { o.Engine = e })
	e.hub.Publish(events.BuilderEventType, events.ActionPrune, "", nil)
	if code, body, _ := get(t, s.URL+"/events?since=1&until=2.5"); code != http.StatusOK || body != "" {
		t.Errorf("%d %q", code, body)
	}
}

func TestFilters(t *testing.T) {
	t.Parallel()
	parse := func(text string) (filters, error) {
		return parseFilters(map[string][]string{"filters": {text}}, "a", "b")
	}
	for _, text := range []string{`{"a":{"x":true,"y":true,"z":false},"b":{}}`, `{"a":["x","y"],"b":[]}`} {
		if f, err := parse(text); err != nil || strings.Join(f["a"], " ") != "x y" || len(f["b"]) != 0 {
			t.Errorf("%s: %v, %v", text, f, err)
		}
	}
	for _, text := range []string{"{", `{"c":["x"]}`, `{"a":"x"}`, `[]`, strings.Repeat(" ", maxFilters+1)} {
		if f, err := parse(text); err == nil {
			t.Errorf("%s: %v", text, f)
		}
	}
}

func FuzzFilters(f *testing.F) {
	f.Add(`{"a":{"x":true}}`)
	f.Add(`{"until":["24h"]}`)
	f.Add(`null`)
	f.Fuzz(func(t *testing.T, text string) {
		q := map[string][]string{"filters": {text}}
		if got, err := parseFilters(q, "a"); err == nil {
			for key := range got {
				if key != "a" {
					t.Errorf("%q let %q through", text, key)
				}
			}
		}
		_, _ = timeParam(q, "filters")
		_, _ = intParam(q, "filters")
	})
}
