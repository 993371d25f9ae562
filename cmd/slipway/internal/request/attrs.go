package request

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
)

// frontendAttrs are the options of the Dockerfile frontend, but for those of the context.
func frontendAttrs(ctx context.Context, o Options) (map[string]string, error) {
	attrs := map[string]string{}
	for _, a := range o.BuildArgs {
		k, v, ok := strings.Cut(a, "=")
		if !ok {
			// A bare name takes the environment's value; one that is not set there is not passed at all.
			if v, ok = os.LookupEnv(k); !ok {
				continue
			}
		}
		attrs["build-arg:"+k] = v
	}
	if ids := o.AllowSecretLeak; len(ids) > 0 {
		const arg = "build-arg:SLIPWAY_ALLOW_SECRET_LEAK"
		if given := attrs[arg]; given != "" {
			ids = append([]string{given}, ids...)
		}
		attrs[arg] = strings.Join(ids, ",")
	}
	if err := setEpoch(ctx, attrs, o); err != nil {
		return nil, err
	}
	for _, l := range o.Labels {
		k, v, _ := strings.Cut(l, "=")
		attrs["label:"+k] = v
	}
	set := func(key, value string) {
		if value != "" {
			attrs[key] = value
		}
	}
	set("target", o.Target)
	set("platform", strings.Join(o.Platforms, ","))
	set("cgroup-parent", o.CgroupParent)
	set("ulimit", strings.Join(o.Ulimits, ","))
	set("cpusetcpus", o.CPUSetCPUs)
	set("cpusetmems", o.CPUSetMems)
	attrs["image-resolve-mode"] = "local"
	if o.Pull {
		attrs["image-resolve-mode"] = "pull"
	}
	switch {
	case o.NoCache:
		attrs["no-cache"] = ""
	case len(o.NoCacheFilter) > 0:
		attrs["no-cache"] = strings.Join(o.NoCacheFilter, ",")
	}
	if err := setHosts(attrs, o.AddHosts); err != nil {
		return nil, err
	}
	if err := setAttests(attrs, o); err != nil {
		return nil, err
	}
	if err := setLimits(attrs, o); err != nil {
		return nil, err
	}
	switch o.Network {
	case "", "default":
	case "host", "none":
		attrs["force-network-mode"] = o.Network
	default:
		return nil, fmt.Errorf("network mode %q not supported: use default, host or none", o.Network)
	}
	return attrs, setCall(attrs, o)
}

// setHosts reads --add-host: host:ip or host=ip, an IPv6 address possibly in brackets.
func setHosts(attrs map[string]string, hosts []string) error {
	var list []string
	for _, h := range hosts {
		name, ip, ok := strings.Cut(h, "=")
		if !ok {
			name, ip, ok = strings.Cut(h, ":")
		}
		if !ok || name == "" || ip == "" {
			return fmt.Errorf("invalid host %q: expected host:ip", h)
		}
		list = append(list, name+"="+strings.Trim(ip, "[]"))
	}
	if len(list) > 0 {
		attrs["add-hosts"] = strings.Join(list, ",")
	}
	return nil
}

func setLimits(attrs map[string]string, o Options) error {
	for key, value := range map[string]string{"shm-size": o.ShmSize, "memory": o.Memory, "memswap": o.MemorySwap} {
		if value == "" {
			continue
		}
		n, err := units.RAMInBytes(value)
		if key == "memswap" && value == "-1" {
			n, err = -1, nil
		}
		if err != nil {
			return fmt.Errorf("invalid size for %s: %w", key, err)
		}
		attrs[key] = strconv.FormatInt(n, 10)
	}
	for key, value := range map[string]int64{"cpushares": o.CPUShares, "cpuperiod": o.CPUPeriod, "cpuquota": o.CPUQuota} {
		if value != 0 {
			attrs[key] = strconv.FormatInt(value, 10)
		}
	}
	return nil
}

// setCall asks the frontend for something else than a build.
func setCall(attrs map[string]string, o Options) error {
	call := o.Call
	if o.Check {
		call = "check"
	}
	call, _, _ = strings.Cut(call, ",")
	requests := map[string]string{"check": "frontend.lint", "lint": "frontend.lint", "outline": "frontend.outline", "targets": "frontend.targets"}
	switch id, ok := requests[call]; {
	case call == "" || call == "build":
	case ok:
		attrs["requestid"] = id
		attrs["frontend.caps"] = "moby.buildkit.frontend.subrequests"
	default:
		return fmt.Errorf("unknown call %q: use build, check, outline or targets", call)
	}
	return nil
}

// entitlements are what the build may ask of the daemon. A network mode of host is itself the asking.
func entitlements(o Options) []string {
	list := slices.Clone(o.Allow)
	if o.Network == "host" && !slices.Contains(list, "network.host") {
		list = append(list, "network.host")
	}
	return list
}

// isURL tells whether a context that is no local path is fetched by the daemon.
func isURL(s string) bool {
	if strings.Contains(s, "://") || strings.HasPrefix(s, "git@") {
		return true
	}
	return strings.HasPrefix(s, "github.com/")
}
