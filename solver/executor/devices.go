package executor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// layDevices finds out what the devices of a step need, and makes room for what they mount, so that no mount points of theirs are
// left in the layer.
func (s *step) layDevices(v *view, c *container) error {
	names := s.spec.Devices
	if len(names) == 0 {
		return nil
	}
	if s.r.o.Devices == nil {
		return &InvalidSpecError{Field: "device " + names[0], Err: errors.New("there are no devices here")}
	}
	edits, err := s.r.o.Devices.Edits(names)
	if err != nil {
		return &InvalidSpecError{Field: "device", Err: err}
	}
	c.devices = edits
	if edits.ContainerEdits == nil {
		return nil
	}
	for i, m := range edits.Mounts {
		at, err := s.layDeviceMount(v, m.HostPath, m.ContainerPath)
		if err != nil {
			return fmt.Errorf("mount of devices: %w", err)
		}
		own := *m // the descriptions are shared
		own.ContainerPath = at
		edits.Mounts[i] = &own
	}
	return nil
}

// layDeviceMount makes room for one file or directory of the host, and says where that is.
func (s *step) layDeviceMount(v *view, host, dest string) (string, error) {
	f := newFile{mode: unix.S_IFREG | 0o644, remove: true}
	st, err := os.Stat(host)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// Not every mount shows a file of the host, a tmpfs does not.
		f.mode, host = unix.S_IFDIR|0o755, ""
	case err != nil:
		return "", fmt.Errorf("%s: %w", host, err)
	case st.IsDir():
		f.mode = unix.S_IFDIR | 0o755
	}
	at, err := stubAt(v, dest, f, true)
	if err != nil {
		return "", err
	}
	if at == "/" {
		return "", &InvalidSpecError{Field: "mount " + dest, Err: errors.New("leads to the root")}
	}
	v.mounts = append(v.mounts, viewMount{dest: at, host: host})
	return at, nil
}
