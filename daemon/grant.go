package daemon

import (
	"fmt"
	"slices"

	"github.com/moby/buildkit/util/entitlements"
	"github.com/slipwaybuild/slipway/daemon/config"
	"github.com/slipwaybuild/slipway/solver/executor/devices"
	"github.com/slipwaybuild/slipway/solver/ops"
)

// defaultDeviceDirs are where devices are described: the standard's own directories, then buildkitd's.
func defaultDeviceDirs() []string { return []string{"/etc/cdi", "/var/run/cdi", "/etc/buildkit/cdi"} }

// openDevices opens the descriptions of the host's devices, and finds out what builds may be granted.
func (e *Engine) openDevices(c *config.Config) (err error) {
	e.entitlements = slices.Clone(c.Entitlements)
	if c.CDI.Disabled != nil && *c.CDI.Disabled {
		return nil
	}
	dirs := c.CDI.SpecDirs
	if len(dirs) == 0 {
		dirs = defaultDeviceDirs()
	}
	// An operator who describes devices gives them away, to builds whose client agrees.
	e.entitlements = append(e.entitlements, string(entitlements.EntitlementDevice))
	e.devices, err = devices.New(devices.Options{Dirs: dirs, AutoAllowed: c.CDI.AutoAllowed, Logger: e.log})
	return err
}

// grants are what a build may do beyond what every build may.
type grants struct {
	names   []string
	devices *ops.DeviceGrant // nil: none
}

// grant checks that the daemon allows what the client allows: an entitlement by its name, "device", or "device=NAME[,alias=X]".
func (e *Engine) grant(asked []string) (grants, error) {
	var g grants
	for _, text := range asked {
		name, with, err := entitlements.Parse(text)
		if err != nil {
			return grants{}, fmt.Errorf("%w: entitlement %q: %w", ErrInvalidRequest, text, err)
		}
		if !slices.Contains(e.entitlements, name.String()) {
			return grants{}, fmt.Errorf("%w: granting entitlement %s is not allowed by build daemon configuration; its insecure-entitlements would have to name it", ErrInvalidRequest, name)
		}
		g.names = append(g.names, name.String())
		switch with := with.(type) {
		case nil:
		case *entitlements.DevicesConfig:
			if g.devices == nil {
				g.devices = &entitlements.DevicesConfig{}
			}
			if err := g.devices.Merge(with); err != nil {
				return grants{}, fmt.Errorf("%w: entitlement %q: %w", ErrInvalidRequest, text, err)
			}
		default:
			return grants{}, fmt.Errorf("%w: entitlement %q: unknown kind %T", ErrInvalidRequest, text, with)
		}
	}
	return g, nil
}
