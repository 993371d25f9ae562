package ops

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/entitlements"
	"github.com/slipwaybuild/slipway/solver/executor/devices"
)

// DeviceError names devices that a step asks for and the build was not granted.
type DeviceError struct{ Names []string }

func (e *DeviceError) Error() string {
	if len(e.Names) == 1 {
		return fmt.Sprintf("device %s is requested by the build but not allowed", e.Names[0])
	}
	return fmt.Sprintf("devices %s are requested by the build but not allowed", strings.Join(e.Names, ", "))
}

// stepDevices are the devices of a step.
type stepDevices struct {
	names   []string // whole names, each once
	skipped []string // as they were asked for: optional, and not there
}

// devices finds the devices of the host that a step asks for, and sees that the build may use them. That a device is not there is no
// error if the step can do without it.
func (l *Loader) devices(asked []*pb.CDIDevice, step string) (stepDevices, error) {
	var out stepDevices
	if len(asked) == 0 {
		return out, nil
	}
	if l.f.devices == nil {
		for _, d := range asked {
			if d != nil && !d.Optional {
				return out, fmt.Errorf("CDI device %q is required by step %q, but CDI device support is disabled", d.Name, step)
			}
		}
		return stepDevices{skipped: namesOf(asked)}, nil
	}
	host := l.f.devices.List()
	var refused []string
	for _, d := range asked {
		if d == nil {
			continue
		}
		name, granted := l.granted(d.Name)
		found := host.Find(name)
		switch {
		case len(found) > 0:
		case d.Optional:
			out.skipped = append(out.skipped, d.Name)
		default:
			return out, fmt.Errorf("step %q: %w", step, missingDevice(name, host))
		}
		for _, dev := range found {
			if !granted && !dev.AutoAllow && !l.allows(host, dev.Name) && !slices.Contains(refused, dev.Name) {
				refused = append(refused, dev.Name)
			}
			if !slices.Contains(out.names, dev.Name) {
				out.names = append(out.names, dev.Name)
			}
		}
	}
	if len(refused) > 0 {
		return out, &DeviceError{Names: refused}
	}
	return out, nil
}

// granted says what a request stands for, and whether the build was granted just that: all devices, or an alias the client has
// made up.
func (l *Loader) granted(request string) (name string, yes bool) {
	g := l.o.Devices
	if g == nil {
		return request, false
	}
	if real := g.Devices[request]; real != "" {
		return real, true
	}
	return request, g.All
}

// allows says whether a device is among those that the build was granted by name.
func (l *Loader) allows(host devices.Devices, name string) bool {
	g := l.o.Devices
	if g == nil {
		return false
	}
	for request, alias := range g.Devices {
		if alias == "" && slices.Contains(host.Find(request).Names(), name) {
			return true
		}
	}
	return false
}

func missingDevice(name string, host devices.Devices) error {
	err := &devices.MissingError{Name: name}
	if len(host) == 0 {
		return fmt.Errorf("%w: this host has no CDI devices", err)
	}
	const most = 10
	names := host.Names()
	more := ""
	if len(names) > most {
		names, more = names[:most], ", …"
	}
	return fmt.Errorf("%w: this host has %s%s", err, strings.Join(names, ", "), more)
}

func namesOf(list []*pb.CDIDevice) []string {
	var out []string
	for _, d := range list {
		if d != nil {
			out = append(out, d.Name)
		}
	}
	return out
}

// DeviceGrant is which devices a build may use: see [LoadOptions].
type DeviceGrant = entitlements.DevicesConfig
