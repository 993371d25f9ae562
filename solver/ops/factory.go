package ops

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/solver/pb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/executor"
	"github.com/slipwaybuild/slipway/solver/executor/devices"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/source"
)

// Options goes with [New].
type Options struct {
	// Store holds the layers ops read and make.
	Store *layers.Store
	// Executor runs the steps of exec ops; nil refuses definitions that have any.
	Executor executor.Executor
	// Containers makes interactive containers; nil refuses them.
	Containers Containers
	// Devices are those of the host that steps may ask for; nil has none.
	Devices *devices.Registry
	// Sources serve source ops by scheme. Where two serve one scheme, New fails.
	Sources []source.Source
	// Fetcher makes what brings lazy layers. It borrows the sessions that the function returns, and asks anew for each blob. Nil
	// means that no layer is ever lazy.
	Fetcher func(sessions func() *session.Group) layers.Fetcher
	// CacheMounts knows what cache mounts begin with that are new here; nil knows none.
	CacheMounts CacheMounts
	// DefaultPlatform is that of ops that name none; the zero value is the host's.
	DefaultPlatform ocispecs.Platform
	// TempDir is where compressed archives are unpacked to while they are read; "" is the system's.
	TempDir string
	// Logger takes what has no place in a build's progress; nil is silence.
	Logger *slog.Logger
}

// Factory makes loaders, and holds what every op needs of the engine. Safe for concurrent use.
type Factory struct {
	store    *layers.Store
	exec     executor.Executor
	ctrs     Containers
	devices  *devices.Registry
	sources  map[string]source.Source
	fetcher  func(func() *session.Group) layers.Fetcher
	platform ocispecs.Platform
	mounts   CacheMounts
	log      *slog.Logger
	caps     map[string]bool
	tempDir  string
	searched searched
}

// Containers makes containers in which processes are started one by one.
type Containers interface {
	NewContainer(ctx context.Context, spec executor.ContainerSpec, svc executor.Services) (*executor.Container, error)
}

// New checks o and returns a factory.
func New(o Options) (*Factory, error) {
	if o.Store == nil {
		return nil, errors.New("ops: a layer store is needed")
	}
	f := &Factory{
		store:    o.Store,
		exec:     o.Executor,
		ctrs:     o.Containers,
		devices:  o.Devices,
		sources:  map[string]source.Source{},
		fetcher:  o.Fetcher,
		mounts:   o.CacheMounts,
		platform: o.DefaultPlatform,
		log:      o.Logger,
		tempDir:  o.TempDir,
		caps:     map[string]bool{},
	}
	for _, id := range Caps() {
		f.caps[id] = true
	}
	if f.platform.OS == "" || f.platform.Architecture == "" {
		f.platform = platforms.DefaultSpec()
	}
	f.platform = platforms.Normalize(f.platform)
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	for _, s := range o.Sources {
		for _, scheme := range s.Schemes() {
			if _, ok := f.sources[scheme]; ok {
				return nil, fmt.Errorf("ops: two sources serve %s://", scheme)
			}
			f.sources[scheme] = s
		}
	}
	return f, nil
}

// Schemes lists the identifier schemes that source ops may have, sorted.
func (f *Factory) Schemes() []string {
	var out []string
	for s := range f.sources {
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

// source finds who serves an identifier.
func (f *Factory) source(identifier string) (source.Source, error) {
	scheme, _, ok := strings.Cut(identifier, "://")
	if !ok {
		return nil, fmt.Errorf("source %q has no scheme", identifier)
	}
	s, ok := f.sources[scheme]
	if !ok {
		return nil, fmt.Errorf("source %q: nothing serves the scheme %q", identifier, scheme)
	}
	return s, nil
}

// SolveFunc solves a definition inside the same build and returns a hold on its result, which the caller owns; nil for an
// empty definition.
type SolveFunc func(ctx context.Context, def *pb.Definition) (solver.Result, error)

// LoadOptions goes with [Factory.NewLoader].
type LoadOptions struct {
	// Entitlements are those the build was granted: "network.host", "security.insecure".
	Entitlements []string
	// Devices are those of the host that the build was granted beside what every build may use; nil is none.
	Devices *DeviceGrant
	// OldModes is [source.Request.OldModes] for all sources.
	OldModes bool
	// Leaks is what is done about secrets found in what steps make; nil refuses them.
	Leaks *Leaks
	// NoCache makes every step run. Sources are looked up as ever.
	NoCache bool
	// Solve serves build ops; nil refuses them. It must not be a method of something that outlives the build.
	Solve SolveFunc
	// Rewrite is where a source policy goes; nil leaves sources as they are. It is called for several sources at a time.
	Rewrite RewriteFunc
	// Policy names what Rewrite and Solve refuse or replace; "" if that is nothing. It enters the keys of build ops: what one
	// policy let through is no answer under another.
	Policy string
	// Answers are what sources said in this build so far; nil remembers nothing.
	Answers *source.Answers
}

// RewriteFunc is given every source op before it is loaded, and returns the one to use, which may be another, or refuses the source
// with an error. It must not change the op it is given. The platform may be nil.
type RewriteFunc func(ctx context.Context, op *pb.SourceOp, platform *pb.Platform) (*pb.SourceOp, error)

// NewLoader returns the loader of one build.
func (f *Factory) NewLoader(o LoadOptions) *Loader {
	return &Loader{f: f, o: o, graphs: &graphs{
		vertices: map[loadKey]*solver.Vertex{}, outputs: map[*solver.Vertex]int{}, emptied: map[string]bool{},
	}}
}
