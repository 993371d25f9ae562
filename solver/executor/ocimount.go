package executor

import (
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// oci is the mount as a runtime takes it.
func (m *mount) oci() specs.Mount {
	mode := "rw"
	if m.ReadOnly {
		mode = "ro"
	}
	switch m.Type {
	case MountTmpfs:
		options := []string{mode, "nosuid", "mode=1777"}
		if m.TmpfsSize > 0 {
			options = append(options, fmt.Sprintf("size=%d", m.TmpfsSize))
		}
		return specs.Mount{Destination: m.dest, Type: "tmpfs", Source: "tmpfs", Options: options}
	case MountSecret:
		return specs.Mount{Destination: m.dest, Type: "bind", Source: m.host, Options: []string{"rbind", "rprivate", "ro", "nosuid", "nodev", "noexec"}}
	case MountSSH:
		return specs.Mount{Destination: m.dest, Type: "bind", Source: m.host, Options: []string{"rbind", "rprivate", mode, "nosuid", "nodev", "noexec"}}
	default:
		return specs.Mount{Destination: m.dest, Type: "bind", Source: m.host, Options: []string{"rbind", "rprivate", mode}}
	}
}

// environment is that of a process: its own comes first, defaults fill what it leaves out.
func (s *step) environment(own, secret []string, u identity, tty bool) []string {
	env := slices.Concat(own, secret)
	for _, m := range s.mounts {
		if m.Type == MountSSH && !m.absent {
			env = withEnv(env, "SSH_AUTH_SOCK", m.Dest)
		}
	}
	env = withEnv(env, "PATH", defaultPath)
	env = withEnv(env, "HOME", u.home)
	if tty {
		env = withEnv(env, "TERM", "xterm")
	}
	return env
}
