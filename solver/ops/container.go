package ops

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/platforms"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver/executor"
	"github.com/slipwaybuild/slipway/solver/layers"
	fstypes "github.com/tonistiigi/fsutil/types"
)

// ContainerRequest asks for an interactive container, in the words of LLB.
type ContainerRequest struct {
	ID string
	// Mounts are those of an exec op; their inputs and outputs do not count.
	Mounts []*pb.Mount
	// Shows holds, for each mount, what it shows; nil for nothing. They stay the caller's.
	Shows      []*layers.Ref
	Network    pb.NetMode
	Hostname   string
	ExtraHosts []*pb.HostIP
	Platform   *pb.Platform
	// Sessions are asked for secrets, ssh agents and credentials as long as the container is there.
	Sessions func() *session.Group
}

// Container is an interactive container of one build, which releases it; see [executor.Container].
type Container struct {
	*executor.Container
	l *Loader
}

// NewContainer composes a container from layers that it first brings, if they are lazy. What was not granted to the build is an
// [EntitlementError], a request that makes no sense an [executor.InvalidSpecError].
func (l *Loader) NewContainer(ctx context.Context, r ContainerRequest) (*Container, error) {
	if l.f.ctrs == nil {
		return nil, errors.New("interactive containers cannot be used here: there is no executor")
	}
	if err := checkContainer(r); err != nil {
		return nil, &executor.InvalidSpecError{Field: "container", Err: err}
	}
	if err := l.checkEntitlements(r.Network, pb.SecurityMode_SANDBOX); err != nil {
		return nil, err
	}
	spec := executor.ContainerSpec{
		ID: r.ID, Hostname: r.Hostname, Network: networkOf(r.Network), ExtraHosts: hostsOf(r.ExtraHosts),
		Platform: platforms.Format(l.f.normalise(r.Platform)),
	}
	for i, m := range r.Mounts {
		var base []layers.ID
		if ref := r.Shows[i]; ref != nil {
			if err := l.f.fetch(ctx, ref, r.Sessions, nil); err != nil {
				return nil, fmt.Errorf("bring layers of mount %s: %w", m.Dest, err)
			}
			base = ref.IDs()
		}
		spec.Mounts = append(spec.Mounts, mountSpec(m, "/", base))
	}
	c, err := l.f.ctrs.NewContainer(ctx, spec, services{sessions: r.Sessions, mounts: l.f.mounts})
	if err != nil {
		return nil, err
	}
	return &Container{Container: c, l: l}, nil
}

func checkContainer(r ContainerRequest) error {
	if len(r.Mounts) != len(r.Shows) || len(r.Mounts) > maxMounts {
		return fmt.Errorf("%d mounts, the limit is %d", len(r.Mounts), maxMounts)
	}
	root := 0
	for i, m := range r.Mounts {
		if m == nil {
			return fmt.Errorf("mount %d is empty", i)
		}
		m.Input, m.Output = noIndex, noIndex
		if err := checkMount(m, 0); err != nil {
			return fmt.Errorf("mount %q: %w", m.Dest, err)
		}
		if m.Dest == pb.RootMount {
			root++
		}
	}
	if root != 1 {
		return fmt.Errorf("%d root mounts, one is required", root)
	}
	return checkModes(r.Network, pb.SecurityMode_SANDBOX)
}

// Start starts a process; see [executor.Container.Start].
func (c *Container) Start(ctx context.Context, r gwclient.StartRequest) (*executor.Process, error) {
	if err := errors.Join(checkModes(pb.NetMode_UNSET, r.SecurityMode), checkSecretEnv(r.SecretEnv)); err != nil {
		return nil, &executor.InvalidSpecError{Field: "process", Err: err}
	}
	if err := c.l.checkEntitlements(pb.NetMode_UNSET, r.SecurityMode); err != nil {
		return nil, err
	}
	return c.Container.Start(ctx, executor.ProcessSpec{
		Args: r.Args, Env: r.Env, Cwd: r.Cwd, User: r.User, SecretEnvs: secretEnvs(r.SecretEnv),
		Security: securityOf(r.SecurityMode), RemoveMountStubs: r.RemoveMountStubsRecursive,
	}, executor.IO{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Tty: r.Tty})
}

// StatFile describes a file of mount i; see [executor.Container.Stat].
func (c *Container) StatFile(i int, name string) (*fstypes.Stat, error) {
	e, err := c.Stat(i, name)
	if err != nil {
		return nil, err
	}
	return statOf(e), nil
}

// ReadDir lists a directory of mount i; see [executor.Container.ReadDir].
func (c *Container) ReadDir(i int, name, pattern string) ([]*fstypes.Stat, error) {
	entries, err := c.Container.ReadDir(i, name)
	if err != nil {
		return nil, err
	}
	return listed(entries, pattern)
}

func networkOf(m pb.NetMode) executor.Network {
	switch m {
	case pb.NetMode_HOST:
		return executor.NetworkHost
	case pb.NetMode_NONE:
		return executor.NetworkNone
	}
	return executor.NetworkDefault
}

func securityOf(m pb.SecurityMode) executor.Security {
	if m == pb.SecurityMode_INSECURE {
		return executor.SecurityInsecure
	}
	return executor.SecuritySandbox
}

func hostsOf(list []*pb.HostIP) []executor.HostIP {
	var out []executor.HostIP
	for _, h := range list {
		out = append(out, executor.HostIP{Host: h.GetHost(), IP: h.GetIP()})
	}
	return out
}

func secretEnvs(list []*pb.SecretEnv) []executor.SecretEnv {
	var out []executor.SecretEnv
	for _, v := range list {
		out = append(out, executor.SecretEnv{ID: v.GetID(), Name: v.GetName(), Optional: v.GetOptional()})
	}
	return out
}
