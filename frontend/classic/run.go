package classic

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/slipwaybuild/slipway/solver/ops"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// runCommand runs a command and keeps what it changed.
//
// An earlier build's image is used if there is one of the same step and the solver has its result. If the image is there and the
// result is not, the command runs again; if the image is not there it runs in any case, as with docker.
func (s *stage) runCommand(ctx context.Context, c *instructions.RunCommand) error {
	if len(c.FlagsUsed) > 0 {
		return needsBuildKit(c.FlagsUsed[0])
	}
	command := s.commandLine(c.ShellDependantCmdLine)
	args := s.args.beside(s.config.Env)
	made := s.config.clone()
	made.Cmd = s.args.commandWith(args, command)
	if len(made.Cmd) > 0 {
		made.Entrypoint = nil
	}
	found, err := s.probe(ctx, made)
	if err != nil {
		return err
	}
	opts, err := s.runOptions(ctx, command, args)
	if err != nil {
		return err
	}
	container := ""
	begin := func() {
		if container == "" {
			container = s.createContainer()
		}
	}
	if found == nil {
		opts = append(opts, llb.IgnoreCache)
		begin()
	}
	next := s.state.Run(append(opts, llb.WithCustomName(c.String()))...).Root()
	ref, ran, err := s.b.perform(ctx, next, s.platform, func(ev progress.Event) {
		if v := ev.Vertex; v != nil && v.Started != nil && v.Completed == nil {
			begin()
		}
		s.logs(ev)
	})
	var exit *gwpb.ExitError
	switch {
	case err != nil && errors.As(err, &exit):
		return &CommandError{Command: strings.Join(command, " "), Code: int(exit.ExitCode)}
	case err != nil:
		return err
	}
	s.state, s.fs = next, ref
	if found != nil && !ran {
		return s.reuse(*found, true)
	}
	begin()
	return s.commit(ctx, step{made: made, container: container, changes: true})
}

// runOptions say how a command is run. Predefined arguments that the Dockerfile does not declare are no part of what the result is
// known by.
func (s *stage) runOptions(ctx context.Context, command, args []string) ([]llb.RunOption, error) {
	cfg := &s.b.settings
	dir := s.config.WorkingDir
	if dir == "" {
		dir = "/"
	}
	opts := []llb.RunOption{
		llb.Args(command), llb.With(llb.Dir(dir)), llb.Network(cfg.NetworkMode),
		llb.WithDescription(map[string]string{ops.DescriptionMountPoints: ops.MountPointsKept}),
	}
	if s.config.User != "" {
		opts = append(opts, llb.With(llb.User(s.config.User)))
	}
	var proxy llb.ProxyEnv
	for _, e := range slices.Concat(s.config.Env, args) {
		key, value, _ := strings.Cut(e, "=")
		if slices.Contains(args, e) && s.args.traceless(key) {
			setProxy(&proxy, key, value)
			continue
		}
		opts = append(opts, llb.With(llb.AddEnv(key, value)))
	}
	if proxy != (llb.ProxyEnv{}) {
		opts = append(opts, llb.WithProxy(proxy))
	}
	for _, h := range cfg.ExtraHosts {
		opts = append(opts, llb.AddExtraHost(h.Host, h.IP))
	}
	for _, u := range cfg.Ulimits {
		opts = append(opts, llb.AddUlimit(llb.UlimitName(u.Name), u.Soft, u.Hard))
	}
	if cfg.CgroupParent != "" {
		opts = append(opts, llb.WithCgroupParent(cfg.CgroupParent))
	}
	if cfg.ShmSize > 0 {
		opts = append(opts, llb.AddMount("/dev/shm", llb.Scratch(), llb.Tmpfs(llb.TmpfsSize(cfg.ShmSize))))
	}
	if r := cfg.LinuxResources; r != nil {
		opts = append(opts, llb.WithLinuxResources(llb.LinuxResources{
			Memory: r.Memory, MemorySwap: r.MemorySwap, CPUShares: r.CpuShares, CPUPeriod: r.CpuPeriod, CPUQuota: r.CpuQuota,
			CpusetCpus: r.CpusetCpus, CpusetMems: r.CpusetMems,
		}))
	}
	volumes, err := s.volumes(ctx)
	return append(opts, volumes...), err
}

// volumes mounts the volumes that the image declares. What a command writes there is discarded with the container, so it finds what
// the image has there, and changes nothing.
func (s *stage) volumes(ctx context.Context) (opts []llb.RunOption, err error) {
	var dirs []string
	for v := range s.config.Volumes {
		dirs = append(dirs, "/"+strings.Trim(v, "/"))
	}
	slices.Sort(dirs)
	for _, dir := range dirs {
		there, err := s.tree().isDir(ctx, dir)
		if err != nil {
			return nil, err
		}
		if there {
			opts = append(opts, llb.AddMount(dir, s.state, llb.SourcePath(dir), llb.ForceNoOutput))
		} else {
			opts = append(opts, llb.AddMount(dir, llb.Scratch(), llb.ForceNoOutput))
		}
	}
	return opts, nil
}

func setProxy(p *llb.ProxyEnv, key, value string) {
	switch strings.ToUpper(key) {
	case "HTTP_PROXY":
		p.HTTPProxy = value
	case "HTTPS_PROXY":
		p.HTTPSProxy = value
	case "FTP_PROXY":
		p.FTPProxy = value
	case "NO_PROXY":
		p.NoProxy = value
	case "ALL_PROXY":
		p.AllProxy = value
	}
}
