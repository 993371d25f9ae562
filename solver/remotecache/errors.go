package remotecache

import (
	"errors"

	"github.com/containerd/errdefs"
	"github.com/slipwaybuild/slipway/solver/layers"
)

// errGone is a blob that cannot be had, to the layer store as to containerd's code.
var errGone = errors.Join(layers.ErrNotFound, errdefs.ErrNotFound)
