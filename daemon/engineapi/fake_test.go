package engineapi

import (
	"context"
	"errors"
	"testing"

	"github.com/slipwaybuild/slipway/daemon"
	"github.com/slipwaybuild/slipway/daemon/events"
	"github.com/slipwaybuild/slipway/daemon/imageservice"
	"github.com/slipwaybuild/slipway/daemon/listen"
	"github.com/slipwaybuild/slipway/session/peer"
	"github.com/slipwaybuild/slipway/solver/executor"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/progress"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// The client's idle connections end by themselves.
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}

// fakeEngine does what a test tells it to.
type fakeEngine struct {
	build    func(context.Context, daemon.Request) (*daemon.Response, error)
	progress func(ctx context.Context, ref string) (*progress.Reader, error)
	usage    []layers.Usage
	hub      events.Hub
	limits   executor.Limits

	cancelled []string
}

func (e *fakeEngine) Build(ctx context.Context, r daemon.Request) (*daemon.Response, error) {
	if e.build == nil {
		return nil, errors.New("this test builds nothing")
	}
	return e.build(ctx, r)
}

func (e *fakeEngine) Cancel(who peer.Identity, ref string) error {
	e.cancelled = append(e.cancelled, string(who)+" "+ref)
	return daemon.ErrForeignBuild
}

func (e *fakeEngine) Progress(ctx context.Context, ref string) (*progress.Reader, error) {
	if e.progress == nil {
		return nil, daemon.ErrNoBuild
	}
	return e.progress(ctx, ref)
}

func (e *fakeEngine) Usage(context.Context) ([]layers.Usage, error) { return e.usage, nil }

// Prune removes what the options' filter lets through.
func (e *fakeEngine) Prune(_ context.Context, o layers.PruneOptions, removed func(layers.Usage)) error {
	for _, u := range e.usage {
		if o.Filter == nil || o.Filter(u) {
			removed(u)
		}
	}
	return nil
}

func (e *fakeEngine) Worker() daemon.Worker {
	return daemon.Worker{ID: "w", Labels: map[string]string{"org.mobyproject.buildkit.worker.network": "host"}}
}

func (e *fakeEngine) Realisation() string     { return "unpacked" }
func (e *fakeEngine) Limits() executor.Limits { return e.limits }
func (e *fakeEngine) Root() string            { return "/var/lib/slipway" }
func (e *fakeEngine) Registries() []daemon.RegistryInfo {
	return []daemon.RegistryInfo{{Host: "docker.io", Mirrors: []string{"mirror.example"}}, {Host: "plain.example", Insecure: true}}
}
func (e *fakeEngine) Events() *events.Hub { return &e.hub }

// closedQueue takes no connections.
func closedQueue() *listen.Queue {
	q := listen.NewQueue()
	_ = q.Close()
	return q
}

// fakeImages is a store without images, in which nothing else can be done.
type fakeImages struct{ Images }

func (fakeImages) List(context.Context, imageservice.ListOptions) ([]imageservice.Summary, error) {
	return nil, nil
}

func (fakeImages) DiskUsage(context.Context) ([]imageservice.Summary, int64, error) {
	return nil, 0, nil
}
