package executor

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/containerd/platforms"
)

// checked returns a spec with its defaults filled in and its paths clean, or says what is wrong with it.
func checked(spec Spec) (Spec, error) {
	if len(spec.Args) == 0 || spec.Args[0] == "" {
		return spec, &InvalidSpecError{Field: "args", Err: errors.New("no command")}
	}
	for _, list := range [][]string{spec.Args, spec.Env} {
		if slices.ContainsFunc(list, func(s string) bool { return strings.ContainsRune(s, 0) }) {
			return spec, &InvalidSpecError{Field: "args", Err: errors.New("command or environment contains a zero byte")}
		}
	}
	if spec.Platform != "" {
		p, err := platforms.Parse(spec.Platform)
		if err != nil {
			return spec, &InvalidSpecError{Field: "platform", Err: err}
		}
		if p.OS != "linux" {
			return spec, &InvalidSpecError{Field: "platform", Err: fmt.Errorf("steps for %s cannot run here", p.OS)}
		}
	}
	switch spec.Network {
	case NetworkDefault, NetworkHost, NetworkNone:
	default:
		return spec, &InvalidSpecError{Field: "network", Err: fmt.Errorf("unknown network %q", spec.Network)}
	}
	switch spec.Security {
	case SecuritySandbox, SecurityInsecure:
	default:
		return spec, &InvalidSpecError{Field: "security", Err: fmt.Errorf("unknown mode %q", spec.Security)}
	}
	spec.Cwd = path.Join("/", spec.Cwd)
	if spec.Hostname == "" {
		spec.Hostname = DefaultHostname
	}
	if len(spec.ValidExitCodes) == 0 {
		spec.ValidExitCodes = []int{0}
	}
	var err error
	spec.Mounts, err = checkedMounts(spec.Cwd, spec.Mounts)
	return spec, err
}

func checkedMounts(cwd string, mounts []Mount) ([]Mount, error) {
	mounts = slices.Clone(mounts)
	roots := 0
	for i := range mounts {
		m := &mounts[i]
		if m.Type == "" {
			m.Type = MountBind
		}
		if strings.ContainsRune(m.Dest, 0) || m.Dest == "" {
			return nil, &InvalidSpecError{Field: "mount", Err: fmt.Errorf("destination %q", m.Dest)}
		}
		m.Dest = absolute(cwd, m.Dest)
		if err := m.check(); err != nil {
			return nil, &InvalidSpecError{Field: "mount " + m.Dest, Err: err}
		}
		if m.Dest == "/" {
			roots++
		}
	}
	if roots != 1 {
		return nil, &InvalidSpecError{Field: "mounts", Err: fmt.Errorf("%d mounts on /, want one", roots)}
	}
	return mounts, nil
}

func (m *Mount) check() error {
	switch m.Type {
	case MountBind, MountTmpfs, MountSecret, MountSSH:
	case MountCache:
		if m.CacheKey == "" {
			return errors.New("cache mount without a key")
		}
	default:
		return fmt.Errorf("unknown type %q", m.Type)
	}
	if m.Type != MountBind && (m.Output || m.Dest == "/") {
		return fmt.Errorf("a mount of type %s cannot be the root or have an output", m.Type)
	}
	if m.TmpfsSize < 0 {
		return fmt.Errorf("negative size %d", m.TmpfsSize)
	}
	return nil
}
