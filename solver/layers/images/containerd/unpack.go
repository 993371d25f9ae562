package containerd

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/client"
	coreimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/slipwaybuild/slipway/solver/layers/images"
)

// Unpack implements [images.Backing]: every layer becomes a snapshot of the snapshotter, unless it is one already.
func (d *Daemon) Unpack(ctx context.Context, image images.Image) error {
	here, err := d.forHost(ctx, image)
	if !here || err != nil {
		return err
	}
	if err := client.NewImage(d.client, image).Unpack(ctx, d.snapshotter); err != nil {
		return fmt.Errorf("containerd at %s: %w", d.address, err)
	}
	return nil
}

// forHost tells whether an image has this host's platform.
func (d *Daemon) forHost(ctx context.Context, image images.Image) (bool, error) {
	host := platforms.Default()
	m, err := coreimages.Manifest(ctx, d.content, image.Target, host)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	p, err := coreimages.ConfigPlatform(ctx, d.content, m.Config)
	return err == nil && host.Match(p), err
}
