package executor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// Check says whether steps can be run: [NoRuntimeError] if no runtime works here. Looking for one takes a moment the first
// time.
func (r *Runc) Check(ctx context.Context) error {
	_, err := r.finder.find(ctx)
	return err
}

// Run implements [Executor]. Besides [ExitError], [MissingInputError] and [InvalidSpecError] it returns [StartError] when the
// command could not be started, [RuntimeError] and [NoRuntimeError], and the cause of ctx when that ended it. svc and the writer of
// progress may be nil.
func (r *Runc) Run(ctx context.Context, spec Spec, svc Services, io IO, _ progress.Writer) (*Outcome, error) {
	s, err := r.newStep(ctx, spec, svc, io)
	if err != nil {
		return nil, err
	}
	unsupported := s.foreign()
	out, err := s.run(ctx)
	if ctx.Err() == nil {
		err = r.blame(err, unsupported)
	}
	if end := s.release(); end != nil {
		r.log.ErrorContext(ctx, "step did not clean up", "id", s.id, "step", spec.ID, "error", end)
		if err == nil {
			err = errors.Join(end, out.release())
			out = nil
		}
	}
	return out, err
}

func (o *Outcome) release() error {
	var errs []error
	for _, ref := range o.Outputs {
		if ref != nil {
			errs = append(errs, ref.Release())
		}
	}
	return errors.Join(errs...)
}

// newID names a container: nothing else on the host has its name.
func newID() string { return "slipway-" + strings.ToLower(rand.Text()) }

// step is one run.
type step struct {
	r    *Runc
	id   string
	spec Spec
	svc  Services
	io   IO

	rt     *runtime
	mounts []*mount // root first, then in the order of the definition
	values *secrets
	vault  *vault
	agents []*agent
	// emulator is a program of the host that runs the step's; empty unless it has to be run by hand.
	emulator string
	// bundle is the directory the runtime reads: dir, or one in the vault when secrets are in it.
	dir, bundle string
	// open says that processes are asked for later, any of which may have secrets.
	open bool
	// view is what the process sees, and laid what the container is made from, both once it was described.
	view *view
	laid *container
}

func (r *Runc) newStep(ctx context.Context, spec Spec, svc Services, io IO) (*step, error) {
	spec, err := checked(spec)
	if err != nil {
		return nil, err
	}
	if spec.Resources != (Resources{}) && r.cgroups.unavailable != nil {
		return nil, fmt.Errorf("limit resources of step: %w: %w", ErrNoCgroups, r.cgroups.unavailable)
	}
	rt, err := r.finder.find(ctx)
	if err != nil {
		return nil, err
	}
	s := &step{r: r, id: newID(), spec: spec, svc: svc, io: io, rt: rt}
	for _, m := range spec.Mounts {
		kept := m.Output || r.o.KeepFailed && m.Type == MountBind && !m.ReadOnly
		s.mounts = append(s.mounts, &mount{Mount: m, keep: kept})
	}
	root := slices.IndexFunc(s.mounts, func(m *mount) bool { return m.Dest == "/" })
	m := s.mounts[root]
	s.mounts = slices.Insert(slices.Delete(s.mounts, root, root+1), 0, m)
	return s, nil
}

// run does the work in the order that the package comment gives.
func (s *step) run(ctx context.Context) (*Outcome, error) {
	var err error
	if s.values, err = askSecrets(ctx, s.svc, s.mounts, s.spec.SecretEnvs); err != nil {
		return nil, err
	}
	if err := checkSSH(ctx, s.svc, s.mounts); err != nil {
		return nil, err
	}
	if err := pin(ctx, s.r.o.Store, s.mounts); err != nil {
		return nil, err
	}
	if err := openVolumes(ctx, s.r.o.Store, s.svc, s.mounts); err != nil {
		return nil, err
	}
	c, err := s.prepare(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.takeSlot(ctx); err != nil {
		return nil, err
	}
	failure, err := s.execute(ctx, c)
	s.freeSlot()
	if err != nil {
		return nil, err
	}
	if err := s.unmount(); err != nil {
		return nil, err
	}
	if failure == nil {
		return s.outcome(ctx)
	}
	if s.r.o.KeepFailed {
		if failure.Left, err = s.left(ctx); err != nil {
			s.r.log.WarnContext(ctx, "keep what a failed step left", "id", s.id, "error", err)
		}
	}
	return nil, failure
}

func (s *step) takeSlot(ctx context.Context) error {
	if s.r.slots == nil {
		return nil
	}
	select {
	case s.r.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *step) freeSlot() {
	if s.r.slots != nil {
		<-s.r.slots
	}
}

// execute connects the step, writes its bundle and runs it. failure is the step's own; err is anything else.
func (s *step) execute(ctx context.Context, c *container) (failure *ExitError, err error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	disconnect, err := s.connect(ctx, c)
	if err != nil {
		return nil, err
	}
	defer disconnect()
	if err := s.writeBundle(ctx, c); err != nil {
		return nil, err
	}
	return s.runProcess(ctx, c.cgroup)
}

// writeBundle writes what the runtime reads.
func (s *step) writeBundle(ctx context.Context, c *container) error {
	spec, err := c.ociSpec(ctx)
	if err != nil {
		return err
	}
	return writeConfig(s.bundle, spec)
}

// runProcess runs the process and sees that all of it is gone.
func (s *step) runProcess(ctx context.Context, group string) (failure *ExitError, err error) {
	p := &process{rt: s.rt, id: s.id, bundle: s.bundle, args: s.spec.Args, io: s.io, log: s.r.log}
	// Only limits make a cgroup run out of memory.
	p.keep = s.spec.Resources.Memory > 0 || s.spec.CgroupParent != "" || s.r.o.CgroupParent != ""
	code, err := p.run(ctx)
	oom := p.keep && group != "" && s.r.cgroups.oomKilled(group)
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), killGrace)
	defer cancel()
	s.remove(after, group, err != nil || p.keep)
	if err != nil || slices.Contains(s.spec.ValidExitCodes, code) {
		return nil, err
	}
	return &ExitError{Args: s.spec.Args, Code: code, OOM: oom}, nil
}

// remove takes away what the runtime may have left of the container. Usually all is gone by now, and this looks at one directory.
func (s *step) remove(ctx context.Context, group string, cgroup bool) {
	if err := s.rt.delete(ctx, s.id); err != nil {
		s.r.log.WarnContext(ctx, "delete container", "id", s.id, "error", err)
	}
	if !cgroup {
		return
	}
	if err := s.removeCgroup(ctx, group); err != nil {
		s.r.log.WarnContext(ctx, "remove cgroup", "id", s.id, "error", err)
	}
}

func (s *step) removeCgroup(ctx context.Context, group string) error {
	if group == "" {
		return nil
	}
	return s.r.cgroups.remove(ctx, group)
}

// outcome seals the outputs in the order of the definition.
func (s *step) outcome(ctx context.Context) (*Outcome, error) {
	out := &Outcome{}
	for _, want := range s.spec.Mounts {
		if !want.Output {
			continue
		}
		i := slices.IndexFunc(s.mounts, func(m *mount) bool { return m.Output && m.upper != nil && m.Dest == want.Dest })
		ref, err := s.mounts[i].seal(ctx, s.r.o.Store, s.spec.Args)
		if err != nil {
			return nil, errors.Join(err, out.release())
		}
		out.Outputs = append(out.Outputs, ref)
	}
	return out, nil
}

// left seals whatever was written to, by mount of the spec.
func (s *step) left(ctx context.Context) ([]*layers.Ref, error) {
	left := make([]*layers.Ref, len(s.mounts))
	for i, m := range s.asWritten() {
		if !m.keep {
			continue
		}
		ref, err := m.seal(ctx, s.r.o.Store, s.spec.Args)
		if err != nil {
			return nil, errors.Join(err, (&Outcome{Outputs: left[:i]}).release())
		}
		left[i] = ref
	}
	return left, nil
}

// unmount ends sockets, secrets and mounts. A second call does nothing.
func (s *step) unmount() error {
	var errs []error
	for _, a := range s.agents {
		errs = append(errs, a.close())
	}
	s.agents = nil
	if s.vault != nil {
		errs = append(errs, s.vault.close())
		s.vault = nil
	}
	for _, m := range slices.Backward(s.mounts) {
		errs = append(errs, m.unmount())
	}
	return errors.Join(errs...)
}

// release gives back whatever the step still holds.
func (s *step) release() error {
	errs := []error{s.unmount()}
	for _, m := range slices.Backward(s.mounts) {
		errs = append(errs, m.release())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}
