package daemon

import (
	"context"

	"github.com/slipwaybuild/slipway/daemon/config"
	"github.com/slipwaybuild/slipway/solver/layers/images"
	"github.com/slipwaybuild/slipway/solver/layers/images/containerd"
)

// openContainerd makes a running containerd the backing of the image store, if the configuration says so.
func (e *Engine) openContainerd(ctx context.Context, c config.Containerd, o *images.Options) (err error) {
	if c.Undecided() {
		e.log.Warn("the configuration table worker.containerd is ignored: worker.containerd.enabled is not set")
	}
	if !c.On() {
		return nil
	}
	e.foreign, err = containerd.Connect(ctx, containerd.Options{Address: c.Address, Namespace: c.Namespace, Snapshotter: c.Snapshotter})
	if err != nil {
		return err
	}
	e.opened("connection to containerd", e.foreign.Close)
	o.Backing = e.foreign
	e.log.Info("images are kept in containerd", "address", c.Address, "namespace", e.foreign.Namespace(), "uuid", e.foreign.UUID())
	return nil
}

// labelContainerd tells clients which containerd has the images, by which some decide whether to load what was built.
func (e *Engine) labelContainerd(c config.Containerd) {
	if e.foreign == nil || e.worker.Labels == nil {
		return
	}
	e.worker.Labels["org.mobyproject.buildkit.worker.containerd.uuid"] = e.foreign.UUID()
	e.worker.Labels["org.mobyproject.buildkit.worker.containerd.namespace"] = e.foreign.Namespace()
	if c.Snapshotter != "" {
		e.worker.Labels["org.mobyproject.buildkit.worker.snapshotter"] = c.Snapshotter
	}
}
