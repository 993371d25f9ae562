package ops

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/solver/pb"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/executor"
	"github.com/slipwaybuild/slipway/solver/flight"
	"github.com/slipwaybuild/slipway/solver/guard"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// defaultPath is what a command without PATH gets, as everywhere.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Run brings the layers that are mounted, hands the step to the executor and puts what it wrote onto what it was given.
func (e *execOp) Run(ctx context.Context, call solver.Call, inputs []solver.Result) ([]solver.Result, error) {
	for _, i := range e.mounted() {
		if err := e.f.fetchInput(ctx, call, i, inputs[i]); err != nil {
			return nil, err
		}
	}
	for _, name := range e.devices.skipped {
		call.Progress().Log(progress.Stderr, fmt.Appendf(nil, "optional device %q is not on this host, the step runs without it\n", name))
	}
	own := secretsOf(call, e.leaks, e.beginnings())
	out, err := e.f.exec.Run(ctx, e.spec(inputs), own, logTo(own.progress), own.progress)
	own.flush()
	if err != nil {
		if out != nil {
			e.f.release(out.Outputs...)
		}
		return nil, own.values.Matcher().MaskError(e.fail(err, inputs))
	}
	if err := e.guard(ctx, call, own, out); err != nil {
		e.f.discard(ctx, out.Outputs...)
		// It may be another build's secret: who does not have it tries without.
		return nil, &solver.LenderError{Err: err}
	}
	return e.results(out, inputs)
}

// guard searches what the step wrote for the secrets that it was given, and for those that the builds got that wait for it.
func (e *execOp) guard(ctx context.Context, call solver.Call, own *stepSecrets, out *executor.Outcome) error {
	m := guard.Join(append(witnessed(call), &own.values)...)
	for _, ref := range out.Outputs {
		if err := e.f.guardLayer(ctx, ref, m, guarded{leaks: e.leaks, step: e.name, progress: own.progress}); err != nil {
			return err
		}
	}
	return nil
}

// mounted lists the inputs that mounts show, each once.
func (e *execOp) mounted() []int {
	var out []int
	for _, m := range e.op.Mounts {
		if m.Input != noIndex && !slices.Contains(out, int(m.Input)) {
			out = append(out, int(m.Input))
		}
	}
	return out
}

// results pairs each output with its input: what was written lies on top of it.
func (e *execOp) results(out *executor.Outcome, inputs []solver.Result) ([]solver.Result, error) {
	defer e.f.release(out.Outputs...)
	written := map[int]*layers.Ref{}
	next := 0
	for i, m := range e.op.Mounts {
		if !writes(m) {
			continue
		}
		if next >= len(out.Outputs) {
			return nil, fmt.Errorf("executor gave %d outputs, %d are missing", len(out.Outputs), next+1-len(out.Outputs))
		}
		written[i] = out.Outputs[next]
		next++
	}
	results := make([]solver.Result, len(e.outputs))
	for o, i := range e.outputs {
		var base solver.Result
		if in := e.op.Mounts[i].Input; in != noIndex {
			base = inputs[in]
		}
		below := e.f.held(base)
		if w := written[i]; w != nil {
			// A step that changed nothing keeps its empty layer: histories count one layer a step.
			stack := e.f.store.Stack(below, w)
			e.f.release(below)
			below = stack
		}
		results[o] = NewResult(below)
	}
	return results, nil
}

// writes says whether what is written to a mount becomes a result.
func writes(m *pb.Mount) bool {
	return m.MountType == pb.MountType_BIND && m.Output != noIndex && !m.Readonly
}

// fail makes the executor's error the step's.
func (e *execOp) fail(err error, inputs []solver.Result) error {
	var missing *executor.MissingInputError
	if errors.As(err, &missing) {
		for i, in := range inputs {
			for _, id := range idsOf(in) {
				if slices.Contains(missing.IDs, id) {
					return &solver.LostError{Input: i, Err: err}
				}
			}
		}
	}
	args := strings.Join(e.op.Meta.Args, " ")
	var exit *executor.ExitError
	if errors.As(err, &exit) {
		// The error may go to many builds, none of which owns what the step left.
		left := exit.Left
		exit.Left = nil
		return e.keep(fmt.Errorf("process %q did not complete successfully: %w", args, err), inputs, left)
	}
	err = fmt.Errorf("run %q: %w", args, err)
	if flight.IsContextError(err) {
		return err
	}
	err = e.keep(err, inputs, nil)
	if errors.Is(err, executor.ErrNoSecret) || errors.Is(err, executor.ErrNoSSH) || errors.Is(err, session.ErrNoSession) {
		// Another build that waits for this step may bring what these clients did not.
		return &solver.LenderError{Err: err}
	}
	return err
}

// keep puts beside an error what each mount showed and, with what was written, has become. It takes over written.
func (e *execOp) keep(err error, inputs []solver.Result, written []*layers.Ref) error {
	defer e.f.release(written...)
	saw, left := make([]*layers.Ref, len(e.op.Mounts)), make([]*layers.Ref, len(e.op.Mounts))
	for i, m := range e.op.Mounts {
		below := e.f.store.Scratch()
		if m.Input != noIndex {
			e.f.release(below)
			below = e.f.held(inputs[m.Input])
			saw[i] = below.Clone()
		}
		switch {
		case i < len(written) && written[i] != nil:
			left[i] = e.f.store.Stack(below, written[i])
		case m.Input != noIndex:
			left[i] = below.Clone()
		}
		e.f.release(below)
	}
	return e.leftovers.keep(err, saw, left)
}

// Close gives back what failed runs left.
func (e *execOp) Close() error {
	e.leftovers.close(e.f)
	return nil
}

// release gives holds back. That it fails is a fault of ours, which no build should suffer for.
func (f *Factory) release(refs ...*layers.Ref) {
	for _, r := range refs {
		if r == nil {
			continue
		}
		if err := r.Release(); err != nil {
			f.log.Error("release layers", "err", err)
		}
	}
}

// spec is the step as plain data.
func (e *execOp) spec(inputs []solver.Result) executor.Spec {
	meta := e.op.Meta
	s := executor.Spec{
		Args:             slices.Clone(meta.Args),
		Env:              envList(meta),
		Cwd:              meta.Cwd,
		User:             meta.User,
		Hostname:         meta.Hostname,
		Network:          networkOf(e.op.Network),
		Security:         securityOf(e.op.Security),
		ExtraHosts:       hostsOf(meta.ExtraHosts),
		SecretEnvs:       secretEnvs(e.op.Secretenv),
		CgroupParent:     meta.CgroupParent,
		RemoveMountStubs: meta.RemoveMountStubsRecursive,
		KeepMountPoints:  e.keepMountPoints,
		Platform:         platforms.Format(e.platform),
		Devices:          e.devices.names,
	}
	for _, u := range meta.Ulimit {
		s.Ulimits = append(s.Ulimits, executor.Ulimit{Name: u.GetName(), Soft: u.GetSoft(), Hard: u.GetHard()})
	}
	for _, c := range meta.ValidExitCodes {
		s.ValidExitCodes = append(s.ValidExitCodes, int(c))
	}
	if r := e.resources; r != nil {
		s.Resources = executor.Resources{
			Memory: r.Memory, MemorySwap: r.MemorySwap,
			CPUShares: r.CpuShares, CPUPeriod: r.CpuPeriod, CPUQuota: r.CpuQuota,
			CpusetCpus: r.CpusetCpus, CpusetMems: r.CpusetMems,
		}
	}
	for _, m := range e.op.Mounts {
		s.Mounts = append(s.Mounts, e.mount(m, inputs))
	}
	return s
}

func (e *execOp) mount(m *pb.Mount, inputs []solver.Result) executor.Mount {
	var base []layers.ID
	if m.Input != noIndex {
		base = idsOf(inputs[m.Input])
	}
	out := mountSpec(m, e.op.Meta.Cwd, base)
	out.Output = writes(m)
	return out
}

// mountSpec is a mount as plain data, showing base.
func mountSpec(m *pb.Mount, cwd string, base []layers.ID) executor.Mount {
	out := executor.Mount{Dest: mountDest(m.Dest, cwd), ReadOnly: m.Readonly, Selector: m.Selector, Layers: base}
	switch m.MountType {
	case pb.MountType_BIND:
		out.Type = executor.MountBind
	case pb.MountType_CACHE:
		out.Type = executor.MountCache
		out.CacheKey, out.CacheSharing = cacheOf(m, out.Layers)
	case pb.MountType_TMPFS:
		out.Type = executor.MountTmpfs
		out.TmpfsSize = m.TmpfsOpt.GetSize()
	case pb.MountType_SECRET:
		o := m.SecretOpt
		out.Type = executor.MountSecret
		out.ID, out.Mode, out.UID, out.GID, out.Optional = o.GetID(), o.GetMode(), o.GetUid(), o.GetGid(), o.GetOptional()
	case pb.MountType_SSH:
		o := m.SSHOpt
		out.Type = executor.MountSSH
		out.ID, out.Mode, out.UID, out.GID, out.Optional = o.GetID(), o.GetMode(), o.GetUid(), o.GetGid(), o.GetOptional()
	}
	return out
}

// emptyCacheMounts lets the cache mounts of a step that ignores the cache begin anew, once in a build: its steps share them.
func (l *Loader) emptyCacheMounts(op *pb.ExecOp) {
	for _, m := range op.GetMounts() {
		if m.GetMountType() != pb.MountType_CACHE || l.emptied[cacheID(m)] {
			continue
		}
		l.emptied[cacheID(m)] = true
		l.f.store.RetireVolumes(cacheID(m))
	}
}

func cacheID(m *pb.Mount) string {
	if id := m.CacheOpt.GetID(); id != "" {
		return id
	}
	return m.Dest
}

// cacheOf names the volume of a cache mount: by its id, and by what it began with.
func cacheOf(m *pb.Mount, base []layers.ID) (string, layers.Sharing) {
	key := cacheID(m)
	if len(base) > 0 {
		h := sha256.New()
		for _, id := range base {
			fmt.Fprintln(h, id)
		}
		key += ":" + hex.EncodeToString(h.Sum(nil))
	}
	switch m.CacheOpt.GetSharing() {
	case pb.CacheSharingOpt_PRIVATE:
		return key, layers.Private
	case pb.CacheSharingOpt_LOCKED:
		return key, layers.Locked
	}
	return key, layers.Shared
}

// envList is the environment of the command: its own, proxies in both spellings, and a PATH.
func envList(meta *pb.Meta) []string {
	env := slices.Clone(meta.Env)
	p := meta.ProxyEnv
	for _, v := range []struct{ name, value string }{
		{"HTTP_PROXY", p.GetHttpProxy()},
		{"HTTPS_PROXY", p.GetHttpsProxy()},
		{"FTP_PROXY", p.GetFtpProxy()},
		{"NO_PROXY", p.GetNoProxy()},
		{"ALL_PROXY", p.GetAllProxy()},
	} {
		if v.value != "" {
			env = append(env, v.name+"="+v.value, strings.ToLower(v.name)+"="+v.value)
		}
	}
	if !slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "PATH=") }) {
		env = append(env, "PATH="+defaultPath)
	}
	return env
}

// logTo sends what the command prints to those who watch.
func logTo(p progress.Writer) executor.IO {
	return executor.IO{Stdout: logWriter{p, progress.Stdout}, Stderr: logWriter{p, progress.Stderr}}
}

type logWriter struct {
	p      progress.Writer
	stream int
}

var _ io.Writer = logWriter{}

func (w logWriter) Write(b []byte) (int, error) {
	w.p.Log(w.stream, b)
	return len(b), nil
}
