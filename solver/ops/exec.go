package ops

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver"
)

// noIndex stands for no input (scratch) and no output in LLB.
const noIndex = -1

// DescriptionMountPoints, in the description of an exec op, with the value MountPointsKept, leaves of mount points what dockerd's
// classic builder leaves: see [executor.Spec.KeepMountPoints]. LLB has no word for it.
const (
	DescriptionMountPoints = "org.slipwaybuild.mountpoints"
	MountPointsKept        = "kept"
)

// execOp runs a command.
type execOp struct {
	f         *Factory
	op        *pb.ExecOp
	resources *pb.LinuxResources
	platform  ocispecs.Platform
	name      string
	// outputs holds the mount of each output.
	outputs []int
	// selectors holds, per input, what is read of it; nil for all.
	selectors []solver.Selector
	devices   stepDevices
	leftovers leftovers
	// keepMountPoints is told to the executor.
	keepMountPoints bool
	leaks           *Leaks
	// allowed are the ids of secrets that this step is given and may let out.
	allowed []string
	emptied bool // cache mounts that are made begin with nothing of others: the step ignores the cache
}

func (e *execOp) named(name string) { e.name = name }

func (e *execOp) Selector(i int) solver.Selector {
	if i < 0 || i >= len(e.selectors) || e.selectors[i] == nil {
		return nil
	}
	return e.selectors[i]
}

func (l *Loader) execOp(parsed *parsedOp, op *pb.ExecOp, platform ocispecs.Platform, inputs int) (solver.Op, int, error) {
	if l.f.exec == nil {
		return nil, 0, errors.New("exec ops cannot be used here: there is no executor")
	}
	if err := checkExec(op, inputs); err != nil {
		return nil, 0, err
	}
	if err := l.checkEntitlements(op.Network, op.Security); err != nil {
		return nil, 0, err
	}
	granted, err := l.devices(op.CdiDevices, nameOf(parsed, nil))
	if err != nil {
		return nil, 0, err
	}
	outputs, err := execOutputs(op.Mounts)
	if err != nil {
		return nil, 0, err
	}
	e := &execOp{
		f:         l.f,
		op:        op,
		resources: parsed.meta.GetLinuxResources(),
		platform:  platform,
		outputs:   outputs,
		devices:   granted,

		keepMountPoints: parsed.meta.GetDescription()[DescriptionMountPoints] == MountPointsKept,
		leaks:           l.o.Leaks,
		allowed:         l.o.Leaks.passing(op),
	}
	if e.selectors, err = execSelectors(l.f, op.Mounts, inputs); err != nil {
		return nil, 0, err
	}
	keepFailed(e.selectors, &e.leftovers)
	return e, len(outputs), nil
}

func checkExec(op *pb.ExecOp, inputs int) error {
	if err := checkMeta(op.GetMeta()); err != nil {
		return err
	}
	if err := checkMounts(op.Mounts, inputs); err != nil {
		return err
	}
	return checkRest(op)
}

// checkMeta looks at what is run.
func checkMeta(m *pb.Meta) error {
	switch {
	case m == nil:
		return errors.New("exec op without meta")
	case len(m.Args) == 0:
		return errors.New("exec op without arguments")
	}
	// The kernel would take what stands before it.
	for what, list := range map[string][]string{
		"argument": m.Args, "environment variable": m.Env, "working directory": {m.Cwd}, "user": {m.User}, "hostname": {m.Hostname},
	} {
		if slices.ContainsFunc(list, hasNUL) {
			return fmt.Errorf("exec op with a zero byte in its %s", what)
		}
	}
	return nil
}

func hasNUL(s string) bool { return strings.ContainsRune(s, 0) }

func checkMounts(mounts []*pb.Mount, inputs int) error {
	if len(mounts) > maxMounts {
		return fmt.Errorf("%w: %d mounts, the limit is %d", ErrTooLarge, len(mounts), maxMounts)
	}
	root := 0
	for i, m := range mounts {
		if m == nil {
			return fmt.Errorf("mount %d is empty", i)
		}
		if err := checkMount(m, inputs); err != nil {
			return fmt.Errorf("mount %q: %w", m.Dest, err)
		}
		if m.Dest == pb.RootMount {
			root++
		}
		switch m.MountType {
		case pb.MountType_TMPFS, pb.MountType_SECRET, pb.MountType_SSH:
			// They have none; clients leave the field at zero, which would be the first.
			m.Output = noIndex
		}
	}
	if root != 1 {
		return fmt.Errorf("exec op with %d root mounts", root)
	}
	return nil
}

// checkRest looks at all that is not mounted.
func checkRest(op *pb.ExecOp) error {
	if err := checkSecretEnv(op.Secretenv); err != nil {
		return err
	}
	return checkModes(op.Network, op.Security)
}

func checkSecretEnv(list []*pb.SecretEnv) error {
	for _, s := range list {
		if s.GetID() == "" || s.GetName() == "" {
			return fmt.Errorf("secret environment variable %q of secret %q: both are needed", s.GetName(), s.GetID())
		}
	}
	return nil
}

func checkModes(network pb.NetMode, security pb.SecurityMode) error {
	switch network {
	case pb.NetMode_UNSET, pb.NetMode_HOST, pb.NetMode_NONE:
	default:
		return fmt.Errorf("unknown network mode %d", network)
	}
	switch security {
	case pb.SecurityMode_SANDBOX, pb.SecurityMode_INSECURE:
	default:
		return fmt.Errorf("invalid security mode %d", security)
	}
	return nil
}

func checkMount(m *pb.Mount, inputs int) error {
	if m.Input < noIndex || m.Input >= int64(inputs) {
		return fmt.Errorf("input %d of an op with %d", m.Input, inputs)
	}
	if m.Output < noIndex {
		return fmt.Errorf("output %d", m.Output)
	}
	switch {
	case m.Dest == "":
		return errors.New("no destination")
	case hasNUL(m.Dest) || hasNUL(m.Selector):
		return errors.New("a zero byte in a path")
	}
	if err := checkKind(m); err != nil {
		return err
	}
	if path.Clean(m.Dest) == pb.RootMount && (m.MountType != pb.MountType_BIND || m.Dest != pb.RootMount) {
		return fmt.Errorf("a mount of type %s cannot be the root", m.MountType)
	}
	if m.ContentCache == pb.MountContentCache_ON && !contentSafe(m) {
		return errors.New("invalid mount cache content: what the step writes would become a result")
	}
	return nil
}

// checkKind looks for the options that the type of a mount needs, and for values that nobody knows.
func checkKind(m *pb.Mount) error {
	switch m.MountType {
	case pb.MountType_BIND, pb.MountType_TMPFS:
	case pb.MountType_CACHE:
		if m.CacheOpt == nil {
			return errors.New("missing cache mount options")
		}
		if _, ok := pb.CacheSharingOpt_name[int32(m.CacheOpt.Sharing)]; !ok {
			return fmt.Errorf("unknown cache sharing mode %d", m.CacheOpt.Sharing)
		}
	case pb.MountType_SECRET:
		if m.SecretOpt == nil {
			return errors.New("missing secret mount options")
		}
	case pb.MountType_SSH:
		if m.SSHOpt == nil {
			return errors.New("missing ssh mount options")
		}
	default:
		return fmt.Errorf("unknown mount type %d", m.MountType)
	}
	if _, ok := pb.MountContentCache_name[int32(m.ContentCache)]; !ok {
		return fmt.Errorf("unknown content cache mode %d", m.ContentCache)
	}
	return nil
}

// outputOf is the output a mount gives. Clients leave it at zero for mounts that cannot give any.
func outputOf(m *pb.Mount) int64 {
	switch m.MountType {
	case pb.MountType_BIND, pb.MountType_CACHE:
		return m.Output
	}
	return noIndex
}

// execOutputs maps outputs to mounts. Numbers must be dense: a result is found by its index.
func execOutputs(mounts []*pb.Mount) ([]int, error) {
	byOutput := map[int64]int{}
	for i, m := range mounts {
		o := outputOf(m)
		if o == noIndex {
			continue
		}
		if _, ok := byOutput[o]; ok {
			return nil, fmt.Errorf("two mounts give output %d", o)
		}
		byOutput[o] = i
	}
	out := make([]int, len(byOutput))
	for o, i := range byOutput {
		if o >= int64(len(out)) {
			return nil, fmt.Errorf("output %d of an op with %d", o, len(out))
		}
		out[o] = i
	}
	return out, nil
}

func (l *Loader) checkEntitlements(network pb.NetMode, security pb.SecurityMode) error {
	if network == pb.NetMode_HOST && !slices.Contains(l.o.Entitlements, "network.host") {
		return &EntitlementError{Name: "network.host"}
	}
	if security == pb.SecurityMode_INSECURE && !slices.Contains(l.o.Entitlements, "security.insecure") {
		return &EntitlementError{Name: "security.insecure"}
	}
	return nil
}

// contentSafe says whether the input of a mount may enter the key by the content of what is mounted alone. It may not where
// what the step writes becomes a result together with what was not mounted.
func contentSafe(m *pb.Mount) bool {
	return outputOf(m) == noIndex || m.Readonly
}

// byContent says whether a mount's input enters the key by its content. The root does not: digesting a whole root file system
// costs more than it saves. A read-only mount that is given on as an output neither: the result is the whole input.
func byContent(m *pb.Mount) bool {
	return contentSafe(m) && outputOf(m) == noIndex && m.Dest != pb.RootMount && m.ContentCache != pb.MountContentCache_OFF
}
