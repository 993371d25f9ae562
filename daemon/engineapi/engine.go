package engineapi

import (
	"context"

	"github.com/slipwaybuild/slipway/daemon"
	"github.com/slipwaybuild/slipway/daemon/events"
	"github.com/slipwaybuild/slipway/session/peer"
	"github.com/slipwaybuild/slipway/solver/executor"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// Engine is what the API needs of the daemon's engine; [daemon.Engine] is one.
type Engine interface {
	Builder
	Cache
	Host
	// Events is where the engine and the API tell what happens.
	Events() *events.Hub
}

// Builder runs builds.
type Builder interface {
	// Build runs one build to its end; see [daemon.Engine.Build].
	Build(context.Context, daemon.Request) (*daemon.Response, error)
	// Cancel ends a build for who asks; see [daemon.Engine.Cancel].
	Cancel(who peer.Identity, ref string) error
	// Progress follows a build's story from its beginning; the caller closes the reader.
	Progress(ctx context.Context, ref string) (*progress.Reader, error)
}

// Cache is the build cache on disk.
type Cache interface {
	// Usage lists what is on disk.
	Usage(context.Context) ([]layers.Usage, error)
	// Prune removes what nobody uses, telling of each.
	Prune(ctx context.Context, o layers.PruneOptions, removed func(layers.Usage)) error
}

// Host describes where the daemon runs.
type Host interface {
	// Worker describes what steps run on.
	Worker() daemon.Worker
	// Limits tells what steps can be limited by.
	Limits() executor.Limits
	// Realisation says how layers are realised.
	Realisation() string
	// Root is the directory of all state.
	Root() string
	// Registries lists the registries that the configuration says something about.
	Registries() []daemon.RegistryInfo
}

// Settings are those of the configuration that may change while the daemon runs.
type Settings struct {
	// BuildKit is what clients are told to build with when their user did not choose: nil and true are the session-based builder,
	// false is the classic one.
	BuildKit *bool
	// EngineForClassic lets requests for the classic builder, and those that name none, be built by the engine.
	EngineForClassic bool
	// Debug says that the daemon logs more.
	Debug bool
}
