package daemon

import (
	"cmp"
	"context"
	"path/filepath"

	"github.com/slipwaybuild/slipway/daemon/config"
	"github.com/slipwaybuild/slipway/solver/executor"
	"github.com/slipwaybuild/slipway/solver/executor/network"
)

// defaultCNIConfig is where an operator's CNI configuration is looked for.
const defaultCNIConfig = "/etc/slipway/cni.json"

// cniPluginDirs are where CNI plugins usually are: their own place, Debian's and Fedora's.
func cniPluginDirs() []string { return []string{"/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"} }

// openExecutor finds what runs steps. That there is nothing is told to whoever wants to run one, not to who starts the daemon; a
// network that was configured and does not work is.
func (e *Engine) openExecutor(ctx context.Context, o Options, root string) (err error) {
	c := o.Config.Worker.OCI
	if err := e.openNetwork(ctx, c, root); err != nil {
		return err
	}
	e.executor, err = executor.New(executor.Options{
		Store: e.layers, Root: filepath.Join(root, "executor"), Binary: c.Binary, MaxParallelism: c.MaxParallelism,
		Network: e.network, CgroupParent: c.DefaultCgroupParent, ApparmorProfile: c.ApparmorProfile,
		KeepFailed: true, Rootless: c.Rootless, Platforms: e.host, Devices: e.devices,
		DNS: executor.DNS{
			Nameservers: o.Config.DNS.Nameservers, Options: o.Config.DNS.Options, SearchDomains: o.Config.DNS.SearchDomains,
		},
		Logger: e.log,
	})
	if err != nil {
		return err
	}
	if err := e.executor.Recover(ctx); err != nil {
		e.log.Warn("clean up steps of a former daemon", "error", err)
	}
	if err := e.executor.Check(ctx); err != nil {
		e.log.Warn("steps cannot be run", "error", err)
	}
	return nil
}

func (e *Engine) openNetwork(ctx context.Context, c config.OCI, root string) (err error) {
	mode := network.Mode(c.NetworkMode)
	if c.Rootless && (mode == "" || mode == network.Auto) {
		mode = network.Host
	}
	dirs := cniPluginDirs()
	if c.CNIBinaryPath != "" {
		dirs = filepath.SplitList(c.CNIBinaryPath)
	}
	e.network, err = network.Open(ctx, network.Options{
		Root: filepath.Join(root, "network"), Mode: mode, ConfigPath: cmp.Or(c.CNIConfigPath, defaultCNIConfig), PluginDirs: dirs,
		PoolSize: c.CNIPoolSize, BridgeName: c.BridgeName, BridgeSubnet: c.BridgeSubnet, Logger: e.log,
	})
	if err != nil {
		return err
	}
	e.opened("network", e.network.Close)
	return nil
}
