package main

import (
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/slipwaybuild/slipway/daemon/config"
	"github.com/spf13/pflag"
)

// workerFlags are those of the one worker there is.
type workerFlags struct {
	enabled, containerd, keep string
	ignored                   string
	labels                    []string
	ignoredBool, gc           bool
	c                         config.OCI
}

// ignoredFlags are flags of buildkitd that have no meaning here, as their keys in the configuration file. A command line made for it
// is taken all the same.
func ignoredFlags() []string {
	return []string{
		"otel-socket-path", "save-cache-debug", "proxy-network",
		"oci-worker-proxy-snapshotter-path", "oci-worker-selinux", "oci-worker-no-process-sandbox",
	}
}

func (f *workerFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.enabled, "oci-worker", "auto", "true or auto: it is the only worker there is")
	fs.StringVar(&f.containerd, "containerd-worker", "auto", "false or auto: steps are not run by containerd")
	fs.StringArrayVar(&f.labels, "oci-worker-labels", nil, "label that clients see, name=value; may be repeated")
	fs.StringVar(&f.c.Snapshotter, "oci-worker-snapshotter", "", "taken and not used: how layers are realised is slipway.layers of the configuration")
	fs.StringArrayVar(&f.c.Platforms, "oci-worker-platform", nil, "platform to list before those that are found; the first is the default; may be repeated")
	fs.StringVar(&f.c.NetworkMode, "oci-worker-net", "", "network of steps: auto, bridge, cni, host or none (default auto)")
	fs.StringVar(&f.c.CNIConfigPath, "oci-cni-config-path", "", "CNI configuration (default /etc/slipway/cni.json)")
	fs.StringVar(&f.c.CNIBinaryPath, "oci-cni-binary-dir", "", "directory of CNI plugins (default /opt/cni/bin, /usr/lib/cni, /usr/libexec/cni)")
	fs.IntVar(&f.c.CNIPoolSize, "oci-cni-pool-size", 0, "networks to hold ready")
	fs.StringVar(&f.c.Binary, "oci-worker-binary", "", "OCI runtime (default the first of runc and crun that works)")
	fs.StringVar(&f.c.ApparmorProfile, "oci-worker-apparmor-profile", "", "AppArmor profile of steps")
	fs.IntVar(&f.c.MaxParallelism, "oci-max-parallelism", 0, "steps that run at a time; 0 is no limit")
	fs.BoolVar(&f.c.Rootless, "oci-worker-rootless", false, "as --rootless")
	fs.BoolVar(&f.gc, "oci-worker-gc", true, "remove by the rules of collecting what is not used")
	fs.StringVar(&f.keep, "oci-worker-gc-keepstorage", "", "space to keep, \"reserved[,free[,maximum]]\", in MB or per cent")
	for _, name := range ignoredFlags() {
		switch name {
		case "otel-socket-path", "oci-worker-proxy-snapshotter-path":
			fs.StringVar(&f.ignored, name, "", "")
		default:
			fs.BoolVar(&f.ignoredBool, name, false, "")
		}
		_ = fs.MarkHidden(name) // it was made above
	}
}

// apply puts the flags that were given over the configuration.
func (f *workerFlags) apply(set func(string) bool, c *config.OCI) (warnings []string, err error) {
	if err := f.applyWorkers(set, c); err != nil {
		return nil, err
	}
	if len(f.labels) > 0 {
		labels := maps.Clone(c.Labels)
		if labels == nil {
			labels = map[string]string{}
		}
		for _, l := range f.labels {
			name, value, ok := strings.Cut(l, "=")
			if !ok {
				return nil, fmt.Errorf("--oci-worker-labels %q: not of the form name=value", l)
			}
			labels[name] = value
		}
		c.Labels = labels
	}
	f.applyValues(set, c)
	if f.keep != "" {
		if err := applyKeep(f.keep, c); err != nil {
			return nil, fmt.Errorf("--oci-worker-gc-keepstorage: %w", err)
		}
	}
	for _, name := range ignoredFlags() {
		if set(name) {
			warnings = append(warnings, "flag --"+name+" has no meaning here and is ignored")
		}
	}
	return warnings, nil
}

// applyWorkers sees to it that nobody asks for another worker than there is.
func (f *workerFlags) applyWorkers(set func(string) bool, c *config.OCI) error {
	enabled, err := boolOrAuto(f.enabled)
	if err != nil {
		return fmt.Errorf("--oci-worker: %w", err)
	}
	if set("oci-worker") {
		c.Enabled = enabled
	}
	containerd, err := boolOrAuto(f.containerd)
	if err != nil {
		return fmt.Errorf("--containerd-worker: %w", err)
	}
	if containerd != nil && *containerd {
		return fmt.Errorf("--containerd-worker: steps are run by an OCI runtime, not by containerd")
	}
	return nil
}

func boolOrAuto(v string) (*bool, error) {
	if v == "auto" {
		return nil, nil
	}
	b, err := strconv.ParseBool(v)
	if err != nil {
		return nil, fmt.Errorf("%q is none of true, false, auto", v)
	}
	return &b, nil
}

func (f *workerFlags) applyValues(set func(string) bool, c *config.OCI) {
	for name, over := range map[string]func(){
		"oci-worker-snapshotter":      func() { c.Snapshotter = f.c.Snapshotter },
		"oci-worker-platform":         func() { c.Platforms = f.c.Platforms },
		"oci-worker-net":              func() { c.NetworkMode = f.c.NetworkMode },
		"oci-cni-config-path":         func() { c.CNIConfigPath = f.c.CNIConfigPath },
		"oci-cni-binary-dir":          func() { c.CNIBinaryPath = f.c.CNIBinaryPath },
		"oci-cni-pool-size":           func() { c.CNIPoolSize = f.c.CNIPoolSize },
		"oci-worker-binary":           func() { c.Binary = f.c.Binary },
		"oci-worker-apparmor-profile": func() { c.ApparmorProfile = f.c.ApparmorProfile },
		"oci-max-parallelism":         func() { c.MaxParallelism = f.c.MaxParallelism },
		"oci-worker-rootless":         func() { c.Rootless = f.c.Rootless },
		"oci-worker-gc":               func() { c.GC = &f.gc },
	} {
		if set(name) {
			over()
		}
	}
}

// applyKeep reads "reserved[,free[,maximum]]", each a number of megabytes, a size or a percentage.
func applyKeep(v string, c *config.OCI) error {
	parts := strings.Split(v, ",")
	to := []*config.DiskSpace{&c.ReservedSpace, &c.MinFreeSpace, &c.MaxUsedSpace}
	if len(parts) > len(to) {
		return fmt.Errorf("%q has more than three parts", v)
	}
	c.GCKeepStorage = config.DiskSpace{}
	for i, space := range to {
		*space = config.DiskSpace{}
		if i >= len(parts) {
			continue
		}
		text := strings.TrimSpace(parts[i])
		if n, err := strconv.ParseInt(text, 10, 64); err == nil && n >= 0 {
			space.Bytes = n * 1e6
			continue
		}
		var err error
		if *space, err = config.ParseDiskSpace(text); err != nil {
			return err
		}
	}
	return nil
}
