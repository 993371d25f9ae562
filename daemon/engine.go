package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opentracing/opentracing-go"
	"github.com/slipwaybuild/slipway/daemon/config"
	"github.com/slipwaybuild/slipway/daemon/events"
	"github.com/slipwaybuild/slipway/daemon/history"
	"github.com/slipwaybuild/slipway/daemon/imageservice"
	"github.com/slipwaybuild/slipway/daemon/provenance"
	"github.com/slipwaybuild/slipway/daemon/traces"
	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/frontend"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/resume"
	"github.com/slipwaybuild/slipway/session/samehost"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/cachestore"
	"github.com/slipwaybuild/slipway/solver/executor"
	"github.com/slipwaybuild/slipway/solver/executor/devices"
	"github.com/slipwaybuild/slipway/solver/executor/hostplatform"
	"github.com/slipwaybuild/slipway/solver/executor/network"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/images"
	"github.com/slipwaybuild/slipway/solver/layers/images/containerd"
	"github.com/slipwaybuild/slipway/solver/ops"
	"github.com/slipwaybuild/slipway/solver/progress"
	"github.com/slipwaybuild/slipway/solver/source/registry"
)

// closeTime bounds how long work that nobody waits for any more may take to end.
const closeTime = 30 * time.Second

// statusWait is how long a viewer may be ahead of its build: clients open Status and Solve at the same time.
const statusWait = 10 * time.Second

// Options goes with [Open].
type Options struct {
	// Config is the daemon's configuration; Root in it is the directory of all state.
	Config *config.Config
	// Version is the daemon's own.
	Version string
	Logger  *slog.Logger
	// Tracer makes spans of calls; nil makes none.
	Tracer opentracing.Tracer
	// Spans is where spans end, of which builds record their own; nil records none.
	Spans *traces.Recorder
}

// Engine is the whole of it. All methods are safe for concurrent use.
type Engine struct {
	beginning sync.RWMutex // held while a build begins, so that nothing is taken from under it meanwhile

	log          *slog.Logger
	tracer       opentracing.Tracer
	userAgent    string
	worker       Worker
	platform     ocispecs.Platform
	entitlements []string
	environment  map[string]any // what provenance tells of the builder
	version      string
	root         string
	warnOfLeaks  bool // secrets found in what is built fail no build
	registries   []RegistryInfo
	events       events.Hub

	layers    *layers.Store
	images    *images.Store
	foreign   *containerd.Daemon // what keeps images; nil if it is the engine itself
	imageWork *imageservice.Service
	registry  *registry.Registry
	cache     *cachestore.Store
	solver    *solver.Solver
	sessions  *session.Manager
	sameHost  *samehost.Host
	factory   *ops.Factory
	executor  *executor.Runc
	network   *network.Network
	host      *hostplatform.Host
	devices   *devices.Registry // nil: steps get none
	collector *collector
	fetcher   func(func() *session.Group) layers.Fetcher
	empty     *layers.Ref // the stack of nothing
	resolvers map[string]metaResolver
	frontends map[string]frontend.Frontend
	exporters *exporter.Registry
	history   *history.Store
	spans     *traces.Recorder // nil: builds have no traces
	caches    *caches
	mounts    cacheMounts
	gateways  *gateways
	producers *producers
	running   running

	good, failed atomic.Int64 // builds that ended

	settling sync.WaitGroup // one for every settle and finish under way
	life     context.Context
	end      context.CancelFunc // of life, when the engine is closed
	closers  []closer           // in the order things were opened
}

type closer struct {
	what  string
	close func() error
}

// Open opens the engine over its root, cleaning up what a killed one left there. The caller closes it.
func Open(ctx context.Context, o Options) (_ *Engine, err error) {
	e := &Engine{log: o.Logger, version: o.Version, tracer: o.Tracer, spans: o.Spans, gateways: newGateways(), producers: newProducers()}
	e.life, e.end = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close())
		}
	}()
	e.userAgent = userAgent(o.Version)
	if e.environment, err = provenance.ReadEnvironment(o.Config.ProvenanceEnvDir); err != nil {
		return nil, err
	}
	e.warnOfLeaks = o.Config.Slipway.SecretLeaks == config.WarnOfLeaks
	e.root, e.registries = o.Config.Root, registryInfo(o.Config.Registries)
	if e.host, err = hostplatform.New(o.Config.Worker.OCI.Platforms); err != nil {
		return nil, err
	}
	e.platform = e.host.Default()
	root := o.Config.Root
	if err := os.MkdirAll(root, 0o711); err != nil {
		return nil, fmt.Errorf("make root directory: %w", err)
	}
	if err := e.openStores(ctx, o, root); err != nil {
		return nil, err
	}
	e.sessions = session.NewManager(session.ManagerOptions{
		Logger: o.Logger, Tracer: o.Tracer, Health: session.Health{Patience: patience(o.Config.Slipway.ResumeGrace.Duration)},
	})
	e.opened("sessions", e.sessions.Close)
	if e.sameHost, err = samehost.NewHost(o.Logger); err != nil {
		return nil, err
	}
	if err := e.openDevices(o.Config); err != nil {
		return nil, err
	}
	if err := e.openExecutor(ctx, o, root); err != nil {
		return nil, err
	}
	e.openCaches(Product + "/" + o.Version)
	if err := e.openSources(root); err != nil {
		return nil, err
	}
	if e.cache, err = cachestore.New(ctx, cachestore.Options{Layers: e.layers, Logger: e.log}); err != nil {
		return nil, fmt.Errorf("open cache: %w", err)
	}
	e.opened("cache", e.cache.Close)
	e.solver = solver.New(solver.Options{Store: e.cache, Logger: e.log})
	e.opened("solver", withTimeout(e.solver.Close))
	if err := e.openFrontends(o.Config.Frontend); err != nil {
		return nil, err
	}
	e.openExporters()
	if err := e.openHistory(ctx, o, root); err != nil {
		return nil, err
	}
	e.worker, err = newWorker(root, o.Config.Worker.OCI.Labels, e.layers.Realisation(), e.network.Label())
	if err != nil {
		return nil, err
	}
	e.labelContainerd(o.Config.Worker.Containerd)
	return e, e.openCollector(root, o.Config.Worker.OCI)
}

// patience is how long clients may be silent: never shorter than those that lost their connection may take to come back, and the time that it
// takes to notice the loss.
func patience(grace time.Duration) time.Duration {
	if grace <= 0 {
		grace = resume.UsualGrace
	}
	return max(grace+time.Minute, 90*time.Second)
}

// openCollector comes last: from here on what nobody uses may go.
func (e *Engine) openCollector(root string, c config.OCI) error {
	total, err := diskTotal(root)
	if err != nil {
		return err
	}
	e.worker.GCPolicy = gcRules(total, c)
	prune := func(ctx context.Context, o layers.PruneOptions) error {
		return e.Prune(ctx, o, func(u layers.Usage) {
			e.log.Info("collect", "id", u.ID, "type", u.Use, "size", u.Size, "description", u.Description)
		})
	}
	if e.collector, err = startCollector(e.worker.GCPolicy, prune, e.log); err != nil {
		return err
	}
	e.opened("collector", e.collector.close)
	return nil
}

// openStores opens what keeps bytes.
func (e *Engine) openStores(ctx context.Context, o Options, root string) (err error) {
	total, err := diskTotal(root)
	if err != nil {
		return err
	}
	e.layers, err = layers.Open(ctx, layers.Options{
		Root: filepath.Join(root, "layers"), Realisation: o.Config.Slipway.Layers, Limit: diskLimit(total, o.Config.Worker.OCI), Logger: e.log,
	})
	if err != nil {
		return fmt.Errorf("open layer store: %w", err)
	}
	e.opened("layer store", e.layers.Close)
	e.empty = e.layers.Scratch()
	e.opened("empty layer stack", e.empty.Release)
	opts := images.Options{Root: filepath.Join(root, "images"), Layers: e.layers, Logger: e.log}
	if err := e.openContainerd(ctx, o.Config.Worker.Containerd, &opts); err != nil {
		return err
	}
	if e.images, err = images.Open(ctx, opts); err != nil {
		return fmt.Errorf("open image store: %w", err)
	}
	e.opened("image store", e.images.Close)
	e.registry, err = registry.New(registry.Options{
		Hosts: registryHosts(o.Config.Registries), UserAgent: e.userAgent, Logger: e.log,
		MaxConnections: connections(o.Config.System),
	})
	if err != nil {
		return fmt.Errorf("configure registries: %w", err)
	}
	e.opened("registry connections", e.registry.Close)
	e.imageWork = imageservice.New(imageservice.Options{
		Images: e.images, Layers: e.layers, Registry: e.registry, Events: &e.events, Platform: e.platform, Logger: e.log,
	})
	return nil
}

// settle brings to disk what a build left in memory, while its client is being answered: what was built before a crash is still
// there after it.
func (e *Engine) settle() {
	e.settling.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTime)
		defer cancel()
		if err := errors.Join(e.layers.Flush(ctx), e.cache.Flush(ctx)); err != nil {
			e.log.Warn("write indexes", "error", err)
		}
		e.collector.want()
	})
}

// opened remembers what to close.
func (e *Engine) opened(what string, close func() error) {
	e.closers = append(e.closers, closer{what: what, close: close})
}

// Close ends everything, last opened first. An error names what did not end well, leaks among it.
func (e *Engine) Close() error {
	e.end()
	e.settling.Wait()
	var errs []error
	for _, c := range slices.Backward(e.closers) {
		if err := c.close(); err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", c.what, err))
		}
	}
	e.closers = nil
	return errors.Join(errs...)
}

func withTimeout(close func(context.Context) error) func() error {
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), closeTime)
		defer cancel()
		return close(ctx)
	}
}

// Sessions holds the daemon's ends of all sessions.
func (e *Engine) Sessions() *session.Manager { return e.sessions }

// SameHost reaches the files of clients on this host.
func (e *Engine) SameHost() *samehost.Host { return e.sameHost }

// Tracer makes spans; nil if there is none.
func (e *Engine) Tracer() opentracing.Tracer { return e.tracer }

// Realisation says how layers are realised on this host.
func (e *Engine) Realisation() string { return e.layers.Realisation() }

// Images is what clients do with local images.
func (e *Engine) Images() *imageservice.Service { return e.imageWork }

// Active counts the builds that run.
func (e *Engine) Active() int { return e.history.Active() }

// Finished counts builds that ended, well and otherwise, since the engine was opened.
func (e *Engine) Finished() (good, failed int64) { return e.good.Load(), e.failed.Load() }

// Used is what the layer store takes on disk, and may take, in bytes.
func (e *Engine) Used() (used, limit int64) { return e.layers.Used() }

// Progress follows a build's story from its beginning, waiting for a build that has not begun. A build that ended, also under an
// earlier daemon, has its whole story for as long as it is in the history. The caller closes the reader.
func (e *Engine) Progress(ctx context.Context, ref string) (*progress.Reader, error) {
	return e.history.Follow(ctx, ref, statusWait)
}
