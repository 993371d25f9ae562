package executor

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/slipwaybuild/slipway/solver/executor/devices"
	"github.com/slipwaybuild/slipway/solver/executor/network"
	"github.com/slipwaybuild/slipway/solver/layers"
)

// Options goes with [New].
type Options struct {
	// Store holds the layers and volumes of the steps.
	Store *layers.Store
	// Root is the directory the executor owns: bundles of running steps, and the runtime's state. It is made if missing.
	Root string
	// Binary is the OCI runtime, a name or a path; empty takes the first of runc and crun that works here.
	Binary string
	// MaxParallelism is how many processes may run at once; 0 is no limit.
	MaxParallelism int
	// Network is what [NetworkDefault] means; nil is the host's network. The caller closes it after the last step.
	Network *network.Network
	DNS     DNS
	// CgroupParent is the cgroup that all steps are put below; empty is "/slipway".
	CgroupParent string
	// ApparmorProfile confines steps that are not insecure; empty is none.
	ApparmorProfile string
	// ShmSize is that of /dev/shm in bytes; 0 is 64 MiB.
	ShmSize int64
	// Rootless says that the daemon is not root, or only root of a user namespace: steps get no control groups.
	Rootless bool
	// KeepFailed makes an [ExitError] carry what the step left behind.
	KeepFailed bool
	// Devices describes the devices that steps may be given; nil has none.
	Devices *devices.Registry
	// Platforms says what programs the host runs; nil leaves it to the kernel.
	Platforms Platforms
	// Logger takes what the executor has to say; nil is silence.
	Logger *slog.Logger
}

// Runc runs steps with an OCI runtime found on the host.
type Runc struct {
	o       Options
	log     *slog.Logger
	cgroups cgroups
	finder  finder
	slots   chan struct{} // nil: no limit
}

var _ Executor = (*Runc)(nil)

// New makes an executor. That no runtime works is no error yet: see [Runc.Check].
func New(o Options) (*Runc, error) {
	if o.Store == nil || o.Root == "" {
		return nil, errors.New("executor: a store and a root are needed")
	}
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	root, err := filepath.Abs(o.Root)
	if err != nil {
		return nil, fmt.Errorf("executor: %w", err)
	}
	o.Root = root
	r := &Runc{o: o, log: log, cgroups: probeCgroups()}
	for _, dir := range []string{r.stepsDir(), r.stateDir(), r.tempDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("executor: %w", err)
		}
	}
	if o.Rootless {
		r.cgroups.unavailable = errors.New("the daemon is rootless")
	}
	if r.cgroups.unavailable != nil {
		log.Warn("steps run without control groups", "reason", r.cgroups.unavailable)
	}
	r.finder = finder{binary: o.Binary, state: r.stateDir(), temp: r.tempDir(), noCgroups: r.cgroups.unavailable != nil, rootless: o.Rootless}
	if o.MaxParallelism > 0 {
		r.slots = make(chan struct{}, o.MaxParallelism)
	}
	return r, nil
}

func (r *Runc) stepsDir() string { return filepath.Join(r.o.Root, "steps") }
func (r *Runc) stateDir() string { return filepath.Join(r.o.Root, "runtime") }
func (r *Runc) tempDir() string  { return filepath.Join(r.o.Root, "tmp") }
