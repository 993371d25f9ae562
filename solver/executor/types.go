package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// Spec is one step as plain data: nothing in it belongs to this host or this process, so it can be sent elsewhere.
type Spec struct {
	// ID names the run in logs; it is in no result.
	ID       string
	Args     []string
	Env      []string
	Cwd      string // made if missing
	User     string // name or id, optionally ":group"; looked up in the root file system
	Hostname string
	// Mounts holds the root ("/") and all others, in the order of the definition.
	Mounts     []Mount
	SecretEnvs []SecretEnv
	Network    Network
	Security   Security
	ExtraHosts []HostIP
	Ulimits    []Ulimit
	// CgroupParent is a cgroup path below the daemon's; empty is the default.
	CgroupParent string
	Resources    Resources
	// Devices are those of the host that the step is given, by their whole CDI names: "vendor.com/class=name".
	Devices []string
	// ValidExitCodes are those that are no failure; empty is {0}.
	ValidExitCodes []int
	// RemoveMountStubs also removes parents that were made for mount points.
	RemoveMountStubs bool
	// KeepMountPoints leaves the mount points that had to be made for the step's own mounts, and none of the runtime's; without it
	// it is the other way round.
	KeepMountPoints bool
	// Platform is OS, architecture and variant, "linux/arm64/v8"; empty is the host's.
	Platform string
}

// MountType is what a mount shows.
type MountType string

// The types of mount.
const (
	MountBind   MountType = "bind"
	MountCache  MountType = "cache"
	MountTmpfs  MountType = "tmpfs"
	MountSecret MountType = "secret"
	MountSSH    MountType = "ssh"
)

// Mount is one mount of a step.
type Mount struct {
	Dest     string
	Type     MountType
	ReadOnly bool
	// Layers is the stack a bind shows, or a cache mount starts with, bottom first.
	Layers []layers.ID
	// Selector is a path inside the stack; "" is its root. It is resolved inside the stack and never out of it.
	Selector string
	// Output says that what is written becomes a result. A bind that is neither Output nor ReadOnly may be written, and forgets.
	Output bool

	CacheKey     string
	CacheSharing layers.Sharing

	TmpfsSize int64 // bytes; 0 is the kernel's default

	// For secrets and ssh sockets, and the root directory of a cache mount.
	ID       string
	Mode     uint32
	UID, GID uint32
	Optional bool
}

// SecretEnv is a secret given as an environment variable.
type SecretEnv struct {
	ID       string
	Name     string
	Optional bool
}

// Network is what a step can reach.
type Network string

// The networks.
const (
	NetworkDefault Network = ""     // as the daemon is configured
	NetworkHost    Network = "host" // needs the entitlement; checked before
	NetworkNone    Network = "none" // loopback only
)

// Security is how much a step is confined.
type Security string

// The ways to confine a step.
const (
	SecuritySandbox  Security = ""
	SecurityInsecure Security = "insecure" // needs the entitlement; checked before
)

// HostIP is one line of /etc/hosts.
type HostIP struct{ Host, IP string }

// Ulimit is a resource limit of the process.
type Ulimit struct {
	Name       string
	Soft, Hard int64
}

// Resources limits a step through its cgroup; 0 or "" is no limit. Memory is in bytes.
type Resources struct {
	Memory, MemorySwap     int64
	CPUShares              uint64
	CPUPeriod              uint64
	CPUQuota               int64
	CpusetCpus, CpusetMems string
}

// Services is what only a client has. Each method asks whoever lends now.
type Services interface {
	// Secret returns a secret's value; ErrNoSecret if no client has it.
	Secret(ctx context.Context, id string) ([]byte, error)
	// SSH checks that an agent is offered under id; ErrNoSSH if none is.
	SSH(ctx context.Context, id string) error
	// DialSSH opens one connection to that agent.
	DialSSH(ctx context.Context, id string) (net.Conn, error)
	// CacheMount returns what a new volume for the cache mount with a key holds at first, which is the caller's to discard; nil if a
	// client has nothing for it, and it begins as the mount says.
	CacheMount(ctx context.Context, key string) (*layers.Ref, error)
}

// Errors of [Services].
var (
	ErrNoSecret = errors.New("secret not found")
	ErrNoSSH    = errors.New("no ssh agent forwarded")
)

// IO is where a step's output goes and its input comes from. Nil writers discard.
type IO struct {
	Stdin          io.ReadCloser
	Stdout, Stderr io.Writer
	Tty            bool
	Resize         <-chan Size
	Signal         <-chan int
	// Started is called once the process runs. May be nil.
	Started func()
}

// Size is that of a terminal.
type Size struct{ Rows, Cols uint32 }

// Outcome is what a step left.
type Outcome struct {
	// Outputs holds, for each mount with Output, in order, a hold on the sealed layer of what was written. The caller owns them.
	Outputs []*layers.Ref
}

// Executor runs steps. Run may be called concurrently. It returns when the process and all it started are gone and nothing of
// the step is mounted. Cancelling ctx kills the step.
type Executor interface {
	Run(ctx context.Context, spec Spec, svc Services, io IO, p progress.Writer) (*Outcome, error)
}

// ExitError is the step's own failure: the command ran and ended with a code that is not valid.
type ExitError struct {
	Args []string
	Code int
	// OOM says that the kernel killed it for want of memory.
	OOM bool
	// Left is what it left, for whoever wants to look into it: for each mount of the spec a hold on the sealed layer of what was
	// written there, output or not, and nil where nothing could be. It is empty if that was not to be kept. Its owner is who
	// receives the error.
	Left []*layers.Ref
}

func (e *ExitError) Error() string {
	s := fmt.Sprintf("exit code: %d", e.Code)
	if e.OOM {
		s += ": killed by the kernel for want of memory"
	}
	return s
}

// MissingInputError says which layers of a spec are not in the store: to the solver, lost inputs.
type MissingInputError struct{ IDs []layers.ID }

func (e *MissingInputError) Error() string { return fmt.Sprintf("layers not in the store: %v", e.IDs) }

// InvalidSpecError is a step that cannot be run as asked.
type InvalidSpecError struct {
	Field string
	Err   error
}

func (e *InvalidSpecError) Error() string { return fmt.Sprintf("%s: %v", e.Field, e.Err) }

// Unwrap returns the cause.
func (e *InvalidSpecError) Unwrap() error { return e.Err }
