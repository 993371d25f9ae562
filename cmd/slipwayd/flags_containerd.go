package main

import (
	"errors"

	"github.com/slipwaybuild/slipway/daemon/config"
	"github.com/slipwaybuild/slipway/solver/layers/images/containerd"
	"github.com/spf13/pflag"
)

// containerdFlags name the containerd that keeps images.
type containerdFlags struct {
	address, namespace, snapshotter string
}

func (f *containerdFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.address, "containerd", "", "socket of a containerd that is to keep images and their content")
	fs.StringVar(&f.namespace, "containerd-namespace", "", "containerd's namespace (default "+containerd.DefaultNamespace+")")
	fs.StringVar(&f.snapshotter, "containerd-snapshotter", "", "what containerd unpacks images for (default: its own)")
}

// apply puts the flags over the configuration. To name a containerd is to use it.
func (f *containerdFlags) apply(c *config.Containerd) error {
	if f.address != "" {
		on := true
		c.Enabled, c.Address = &on, f.address
	}
	if !c.On() && (f.namespace != "" || f.snapshotter != "") {
		return errors.New("--containerd-namespace and --containerd-snapshotter need --containerd, or worker.containerd.enabled in the configuration")
	}
	if f.namespace != "" {
		c.Namespace = f.namespace
	}
	if f.snapshotter != "" {
		c.Snapshotter = f.snapshotter
	}
	return nil
}
