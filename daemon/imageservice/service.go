package imageservice

import (
	"context"
	"log/slog"
	"sync"

	"github.com/containerd/platforms"
	"github.com/moby/moby/api/types/events"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	hub "github.com/slipwaybuild/slipway/daemon/events"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/images"
	"github.com/slipwaybuild/slipway/solver/source/registry"
)

// Options goes with [New]. All but Logger and Platform are needed and must outlive the service.
type Options struct {
	Images   *images.Store
	Layers   *layers.Store
	Registry *registry.Registry
	// Events is told what happens to images.
	Events *hub.Hub
	// Platform is chosen where an image has several and nobody asked for one; the zero value is the host's.
	Platform ocispecs.Platform
	Logger   *slog.Logger
}

// Service does the work. All methods are safe for concurrent use. A name that is not there is errdefs.ErrNotFound, nonsense is
// errdefs.ErrInvalidArgument, what the state of things forbids is errdefs.ErrConflict.
type Service struct {
	images   *images.Store
	layers   *layers.Store
	registry *registry.Registry
	events   *hub.Hub
	platform ocispecs.Platform
	log      *slog.Logger

	// mu is held by who decides by the names that there are which to change.
	mu sync.Mutex
}

// New returns the service. It holds nothing and need not be closed.
func New(o Options) *Service {
	s := &Service{images: o.Images, layers: o.Layers, registry: o.Registry, events: o.Events, platform: o.Platform, log: o.Logger}
	if s.platform.OS == "" {
		s.platform = platforms.DefaultSpec()
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s
}

// Sessions returns the sessions whose registry accounts may be used now. nil is nobody's.
type Sessions = func() *session.Group

// Update tells how far a piece of work is.
type Update struct {
	// ID is what is worked on, a layer's short digest; empty for the whole.
	ID string
	// Status is what is being done, in docker's words.
	Status string
	// Layer says that the update is about a layer, which Current of Total bytes are done of; 0 of 0 is no telling.
	Layer          bool
	Current, Total int64
}

// Progress takes updates. It may be called by several goroutines at a time; nil takes nothing.
type Progress func(Update)

func (p Progress) send(u Update) {
	if p != nil {
		p(u)
	}
}

// layer tells of one layer.
func (p Progress) layer(d digest.Digest, status string, current, total int64) {
	p.send(Update{ID: short(d), Status: status, Layer: true, Current: current, Total: total})
}

// short is a digest as people are shown it.
func short(d digest.Digest) string {
	hex := d.Encoded()
	return hex[:min(12, len(hex))]
}

// publish tells who listens to events. name is an attribute, and absent if it is empty.
func (s *Service) publish(action events.Action, id, name string) {
	attributes := map[string]string{}
	if name != "" {
		attributes["name"] = name
	}
	s.events.Publish(events.ImageEventType, action, id, attributes)
}

// leased runs work under a lease on what it writes or finds in the content store.
func (s *Service) leased(ctx context.Context, work func(context.Context) error) (err error) {
	leased, done, err := s.images.WithLease(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if e := done(context.WithoutCancel(ctx)); err == nil {
			err = e
		}
	}()
	return work(leased)
}
