package executor

import (
	"context"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cap"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// container is all that an OCI spec is made from.
type container struct {
	id       string
	rootfs   string
	readOnly bool
	spec     *Spec
	user     identity
	env      []string
	tty      bool
	size     Size
	ownNet   bool
	netns    string        // path of the network namespace; empty has the runtime make one, if ownNet
	mounts   []specs.Mount // after those of the runtime
	cgroup   string        // empty: none
	cgroupV2 bool
	apparmor string
	rootless bool
	shmSize  int64
	devices  *cdi.ContainerEdits // what the host's devices need; may be nil
}

// ociSpec makes the bundle's config. Defaults are containerd's, which are Docker's, except where a build differs from a service.
func (c *container) ociSpec(ctx context.Context) (*specs.Spec, error) {
	ctx = namespaces.WithNamespace(ctx, "slipway")
	s, err := oci.GenerateSpec(ctx, nil, &containers.Container{ID: c.id}, oci.WithDefaultUnixDevices)
	if err != nil {
		return nil, fmt.Errorf("make OCI spec: %w", err)
	}
	s.Root = &specs.Root{Path: c.rootfs, Readonly: c.readOnly}
	s.Hostname = c.spec.Hostname
	s.Mounts = c.allMounts(s.Mounts)
	s.Linux.Namespaces = c.namespaces()
	s.Linux.CgroupsPath = c.cgroup
	c.setProcess(s.Process)
	if s.Process.Rlimits, err = rlimits(c.spec.Ulimits); err != nil {
		return nil, err
	}
	if err := c.confine(s); err != nil {
		return nil, err
	}
	setResources(s.Linux.Resources, c.spec.Resources)
	// After all else: devices may bring variables, mounts and hooks of their own.
	if err := c.devices.Apply(s); err != nil {
		return nil, fmt.Errorf("give devices %s: %w", strings.Join(c.spec.Devices, ", "), err)
	}
	if c.rootless {
		withoutPrivileges(s)
	}
	return s, nil
}

func (c *container) setProcess(p *specs.Process) {
	p.Args = c.spec.Args
	p.Env = c.env
	p.Cwd = c.spec.Cwd
	p.User = c.user.spec()
	p.Terminal = c.tty
	if c.tty && c.size != (Size{}) {
		p.ConsoleSize = &specs.Box{Height: uint(c.size.Rows), Width: uint(c.size.Cols)}
	}
	// Docker does not set it: su, sudo and ping work in a build.
	p.NoNewPrivileges = false
}

func (c *container) namespaces() []specs.LinuxNamespace {
	ns := []specs.LinuxNamespace{
		{Type: specs.PIDNamespace},
		{Type: specs.IPCNamespace},
		{Type: specs.UTSNamespace},
		{Type: specs.MountNamespace},
	}
	if c.ownNet {
		ns = append(ns, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: c.netns})
	}
	if c.cgroupV2 {
		ns = append(ns, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	return ns
}

// allMounts puts the mounts of the step after those of the runtime, leaving out runtime mounts that the step covers.
func (c *container) allMounts(defaults []specs.Mount) []specs.Mount {
	insecure := c.spec.Security == SecurityInsecure
	all := make([]specs.Mount, 0, len(defaults)+len(c.mounts)+1)
	for _, m := range defaults {
		switch m.Destination {
		case "/run": // containerd's, for services; Docker has none, and what a step writes to /run belongs to it
			continue
		case "/dev/shm":
			if c.shmSize > 0 {
				m.Options = append(withoutSize(m.Options), fmt.Sprintf("size=%d", c.shmSize))
			}
		case "/sys":
			m.Options = writable(m.Options, insecure)
		}
		all = append(all, m)
	}
	if c.cgroup != "" {
		all = append(all, specs.Mount{
			Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
			Options: writable([]string{"nosuid", "noexec", "nodev", "ro"}, insecure),
		})
	}
	all = slices.DeleteFunc(all, func(m specs.Mount) bool {
		return slices.ContainsFunc(c.mounts, func(own specs.Mount) bool { return own.Destination == m.Destination })
	})
	return append(all, c.mounts...)
}

func withoutSize(options []string) []string {
	return slices.DeleteFunc(slices.Clone(options), func(o string) bool { return strings.HasPrefix(o, "size=") })
}

func writable(options []string, yes bool) []string {
	if !yes {
		return options
	}
	options = slices.DeleteFunc(slices.Clone(options), func(o string) bool { return o == "ro" })
	return append(options, "rw")
}

// confine sets capabilities, seccomp, masks and devices.
func (c *container) confine(s *specs.Spec) error {
	caps := s.Process.Capabilities.Bounding // containerd's defaults are Docker's
	if c.spec.Security == SecurityInsecure {
		var err error
		if caps, err = cap.Current(); err != nil {
			return fmt.Errorf("read own capabilities: %w", err)
		}
		if err := unconfine(s); err != nil {
			return err
		}
	}
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps}
	if c.user.uid == 0 {
		// Others get none beyond the bounding set, as execve would have it.
		s.Process.Capabilities.Effective = caps
		s.Process.Capabilities.Permitted = caps
	}
	if c.spec.Security == SecurityInsecure {
		return nil
	}
	s.Process.ApparmorProfile = c.apparmor
	profile, err := seccomp.GetDefaultProfile(s)
	if err != nil {
		return fmt.Errorf("make seccomp profile: %w", err)
	}
	s.Linux.Seccomp = profile
	return nil
}

func unconfine(s *specs.Spec) error {
	s.Linux.MaskedPaths = nil
	s.Linux.ReadonlyPaths = nil
	s.Linux.Seccomp = nil
	devices, err := oci.HostDevices()
	if err != nil {
		return fmt.Errorf("list devices: %w", err)
	}
	s.Linux.Devices = devices
	s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
	return nil
}

func setResources(to *specs.LinuxResources, r Resources) {
	if r.Memory > 0 || r.MemorySwap != 0 {
		to.Memory = &specs.LinuxMemory{}
		if r.Memory > 0 {
			to.Memory.Limit = &r.Memory
		}
		if r.MemorySwap != 0 {
			to.Memory.Swap = &r.MemorySwap
		}
	}
	cpu := &specs.LinuxCPU{Cpus: r.CpusetCpus, Mems: r.CpusetMems}
	if r.CPUShares > 0 {
		cpu.Shares = &r.CPUShares
	}
	if r.CPUPeriod > 0 {
		cpu.Period = &r.CPUPeriod
	}
	if r.CPUQuota != 0 {
		cpu.Quota = &r.CPUQuota
	}
	if *cpu != (specs.LinuxCPU{}) {
		to.CPU = cpu
	}
}

// withoutPrivileges takes out what a daemon without root cannot grant.
func withoutPrivileges(s *specs.Spec) {
	s.Linux.CgroupsPath = ""
	s.Linux.Resources = nil
	s.Process.OOMScoreAdj = nil
	for i, m := range s.Mounts {
		// The group of terminals has no number in a namespace that maps only some.
		s.Mounts[i].Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return strings.HasPrefix(o, "gid=") })
		if m.Destination == "/sys" && !slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace }) {
			// sysfs cannot be mounted anew in a network namespace that is not ours.
			s.Mounts[i] = specs.Mount{Destination: "/sys", Type: "none", Source: "/sys", Options: []string{"rbind", "nosuid", "noexec", "nodev", "ro"}}
		}
	}
}

// rlimits translates ulimits. Without any, the step has those of the daemon, as Docker's builds do.
func rlimits(ulimits []Ulimit) ([]specs.POSIXRlimit, error) {
	var out []specs.POSIXRlimit
	for _, u := range ulimits {
		name := "RLIMIT_" + strings.ToUpper(u.Name)
		if !slices.Contains(rlimitNames(), name) {
			return nil, &InvalidSpecError{Field: "ulimit", Err: fmt.Errorf("unknown limit %q", u.Name)}
		}
		soft, hard := rlimit(u.Soft), rlimit(u.Hard)
		if soft > hard {
			return nil, &InvalidSpecError{Field: "ulimit " + u.Name, Err: fmt.Errorf("soft limit %d is above hard limit %d", u.Soft, u.Hard)}
		}
		out = append(out, specs.POSIXRlimit{Type: name, Soft: soft, Hard: hard})
	}
	return out, nil
}

func rlimit(n int64) uint64 {
	if n < 0 {
		return math.MaxUint64 // unlimited
	}
	return uint64(n)
}

func rlimitNames() []string {
	return []string{
		"RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_LOCKS", "RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE",
		"RLIMIT_NICE", "RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_RSS", "RLIMIT_RTPRIO", "RLIMIT_RTTIME", "RLIMIT_SIGPENDING", "RLIMIT_STACK",
	}
}

// withEnv adds name=value unless name is set.
func withEnv(env []string, name, value string) []string {
	if slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") }) {
		return env
	}
	return append(slices.Clip(env), name+"="+value)
}

// cgroupPath joins parents and a container id without ever leaving the first parent.
func cgroupPath(base, parent, id string) string {
	if base == "" {
		base = "/slipway"
	}
	return path.Join("/", base, path.Join("/", parent), id)
}
