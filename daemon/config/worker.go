package config

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/containerd/containerd/v2/pkg/filters"
	"github.com/containerd/platforms"
)

// OCI is how steps run, and how much disk may be used.
type OCI struct {
	// Enabled may be true or absent: there is no other worker.
	Enabled *bool             `toml:"enabled"`
	Labels  map[string]string `toml:"labels"`
	// Platforms are listed before those that are found; the first is the default.
	Platforms []string `toml:"platforms"`
	// Snapshotter is read, so that configurations of buildkitd are taken; how layers are realised is slipway.layers.
	Snapshotter string `toml:"snapshotter"`
	// Rootless says that the daemon is root of a user namespace only.
	Rootless bool `toml:"rootless"`

	GC            *bool      `toml:"gc"`
	GCKeepStorage DiskSpace  `toml:"gckeepstorage"` // deprecated: ReservedSpace
	ReservedSpace DiskSpace  `toml:"reservedSpace"`
	MaxUsedSpace  DiskSpace  `toml:"maxUsedSpace"`
	MinFreeSpace  DiskSpace  `toml:"minFreeSpace"`
	GCPolicy      []GCPolicy `toml:"gcpolicy"`

	NetworkMode   string `toml:"networkMode"`
	CNIConfigPath string `toml:"cniConfigPath"`
	CNIBinaryPath string `toml:"cniBinaryPath"`
	CNIPoolSize   int    `toml:"cniPoolSize"`
	BridgeName    string `toml:"bridgeName"`
	BridgeSubnet  string `toml:"bridgeSubnet"`

	Binary              string `toml:"binary"`
	DefaultCgroupParent string `toml:"defaultCgroupParent"`
	ApparmorProfile     string `toml:"apparmor-profile"`
	MaxParallelism      int    `toml:"max-parallelism"`
}

// GCPolicy is one rule of what is removed after a build; see daemon.GCRule.
type GCPolicy struct {
	All           bool      `toml:"all"`
	Filters       []string  `toml:"filters"`
	KeepDuration  Duration  `toml:"keepDuration"`
	KeepBytes     DiskSpace `toml:"keepBytes"` // deprecated: ReservedSpace
	ReservedSpace DiskSpace `toml:"reservedSpace"`
	MaxUsedSpace  DiskSpace `toml:"maxUsedSpace"`
	MinFreeSpace  DiskSpace `toml:"minFreeSpace"`
}

// maxInterface is how long the kernel lets the name of a network interface be, in bytes.
const maxInterface = 15

func (c *OCI) validate() error {
	if c.Enabled != nil && !*c.Enabled {
		return errors.New("worker.oci.enabled: it is the only worker there is, and cannot be switched off")
	}
	for _, p := range c.Platforms {
		if _, err := platforms.Parse(p); err != nil {
			return fmt.Errorf("worker.oci.platforms: %w", err)
		}
	}
	switch c.NetworkMode {
	case "", "auto", "host", "none", "cni", "bridge":
	default:
		return fmt.Errorf("worker.oci.networkMode: %q is none of auto, bridge, cni, host, none", c.NetworkMode)
	}
	if c.BridgeSubnet != "" {
		if _, err := netip.ParsePrefix(c.BridgeSubnet); err != nil {
			return fmt.Errorf("worker.oci.bridgeSubnet: %w", err)
		}
	}
	switch {
	case len(c.BridgeName) > maxInterface:
		return fmt.Errorf("worker.oci.bridgeName: %q is longer than %d bytes", c.BridgeName, maxInterface)
	case c.CNIPoolSize < 0:
		return fmt.Errorf("worker.oci.cniPoolSize: %d is negative", c.CNIPoolSize)
	case c.MaxParallelism < 0:
		return fmt.Errorf("worker.oci.max-parallelism: %d is negative", c.MaxParallelism)
	}
	for i, p := range c.GCPolicy {
		if _, err := filters.ParseAll(p.Filters...); err != nil {
			return fmt.Errorf("worker.oci.gcpolicy: rule %d: filters: %w", i+1, err)
		}
	}
	return nil
}
