package request

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
)

// unknownToDocker refuses what Docker's API has no words for.
func unknownToDocker(what string) error {
	return fmt.Errorf("%s is beyond what Docker's API can ask of a build: use slipwayd (--addr), or leave it out", what)
}

// refuseFlags refuses what would have no effect.
func refuseFlags(o Options) error {
	for _, f := range []struct {
		name  string
		given bool
	}{
		{"--build-context", len(o.BuildContexts) > 0},
		{"--annotation", len(o.Annotations) > 0},
		{"--no-cache-filter", len(o.NoCacheFilter) > 0 && !o.NoCache},
	} {
		if f.given {
			return unknownToDocker(f.name)
		}
	}
	for _, a := range o.Allow {
		if a != "network.host" { // which comes with --network host
			return unknownToDocker("--allow " + a)
		}
	}
	return nil
}

// setInlineCache reads --cache-to, of which these daemons know but the cache inside the image, by a build argument.
func setInlineCache(attrs map[string]string, o Options) error {
	for _, text := range o.CacheTo {
		e, err := cacheEntry(text)
		if err != nil {
			return fmt.Errorf("--cache-to %s: %w", text, err)
		}
		if e.Type != "inline" || len(e.Attrs) > 0 {
			return unknownToDocker("--cache-to " + text)
		}
		attrs["build-arg:BUILDKIT_INLINE_CACHE"] = "1"
	}
	return nil
}

// setCacheImages reads --cache-from: images that have their cache in them.
func setCacheImages(q url.Values, o Options) error {
	var images []string
	for _, text := range o.CacheFrom {
		e, err := cacheEntry(text)
		if err != nil {
			return fmt.Errorf("--cache-from %s: %w", text, err)
		}
		if e.Type != "registry" || len(e.Attrs) != 1 || e.Attrs["ref"] == "" {
			return unknownToDocker("--cache-from " + text)
		}
		images = append(images, e.Attrs["ref"])
	}
	if len(images) == 0 {
		return nil
	}
	return setJSON(q, "cachefrom", images)
}

// ignored are limits that Docker's daemon takes and forgets, by the frontend's attribute, and the API's version since which it does not.
var ignored = []struct {
	attr, flag string
	until      int
}{
	{"ulimit", "--ulimit", 42},
	{"shm-size", "--shm-size", 42},
	{"cgroup-parent", "--cgroup-parent", 42},
	{"memory", "--memory", never},
	{"memswap", "--memory-swap", never},
	{"cpushares", "--cpu-shares", never},
	{"cpuperiod", "--cpu-period", never},
	{"cpuquota", "--cpu-quota", never},
	{"cpusetcpus", "--cpuset-cpus", never},
	{"cpusetmems", "--cpuset-mems", never},
}

const never = 1 << 15

// DockerEngine is what of a daemon decides what it can build.
type DockerEngine interface {
	// Slipway tells whether it is slipwayd.
	Slipway() bool
	// Knows tells whether it speaks version 1.minor of the API.
	Knows(minor int) bool
}

// Suit fits the build to the daemon that answers, before anything of it was sent: what that cannot do is an error, what it is known to
// ignore a warning.
func (b *DockerBuild) Suit(e DockerEngine) (warnings []string, err error) {
	if !e.Knows(39) {
		return nil, errors.New("the daemon is too old to build by session: Docker 18.09 or newer is needed")
	}
	if err := b.setOutputs(); err != nil {
		return nil, err
	}
	if b.Query.Has("outputs") && !e.Knows(40) {
		return nil, errors.New("the daemon is too old for --output: Docker 19.03 or newer is needed")
	}
	if e.Slipway() {
		return nil, nil
	}
	if len(b.Outputs) > 1 {
		return nil, errors.New("multiple outputs not supported: Docker's daemon takes one --output")
	}
	if err := dockerOutput(b.Outputs[0]); err != nil {
		return nil, err
	}
	for _, limit := range ignored {
		if b.given[limit.attr] && !e.Knows(limit.until) {
			warnings = append(warnings, "Docker's daemon ignores "+limit.flag+" when it builds")
		}
	}
	return warnings, nil
}

// dockerOutput refuses what Docker's daemon cannot write.
func dockerOutput(out Output) error {
	switch {
	case plainImage(out) || slices.Contains([]string{"local", "tar", "cacheonly"}, out.Type):
		return nil
	case out.Attrs["push"] == "true":
		return errors.New("Docker's API cannot push what it builds: build with -t, then use docker push")
	case out.Type == "docker" || out.Type == "oci":
		return fmt.Errorf("Docker's API cannot write archives of type %s: build with -t, then use docker save", out.Type)
	case isImage(out):
		return unknownToDocker("an image output with options")
	}
	return fmt.Errorf("Docker's daemon has no output of type %q: use image, local, tar or cacheonly", out.Type)
}
