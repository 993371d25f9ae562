package remotecache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/keylock"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// ManifestKey is what clients are told the descriptor of a cache's manifest under, as JSON.
const ManifestKey = "cache.manifest"

// Packed is one layer in the form a cache keeps it.
type Packed struct {
	Layer Layer
	// Blob gives the bytes that the layer's descriptor says.
	Blob content.Provider
	// From is the registry reference where the blob is as well; may be empty.
	From string
}

// Packer brings the one layer of a stack into the form that was asked for. What it returns can be read while its context lasts.
type Packer func(ctx context.Context, one *layers.Ref) (Packed, error)

// Exporter writes caches. It is safe for concurrent use; two exports to one place take turns.
type Exporter struct {
	layers *layers.Store
	turns  keylock.Locks[string]
	now    func() time.Time

	mu     sync.Mutex // guards what follows
	mounts map[string]remembered
}

// NewExporter returns an exporter of results in a layer store.
func NewExporter(store *layers.Store) *Exporter { return &Exporter{layers: store, now: time.Now} }

// Export is one cache to write.
type Export struct {
	Target Target
	Pack   Packer
	// Max exports the results of all steps, not just those that make up the outcome.
	Max bool
	// Merge keeps what others wrote. Otherwise it is replaced.
	Merge bool
	// Force packs layers anew that the target has in another form.
	Force bool
	// Mounts are cache mounts to write.
	Mounts []MountSource
}

// Run writes what is known of steps, of which outcome is what the build was for. Progress goes to p. It returns what clients are told.
// Steps of which a layer turns out to be gone are left out.
func (x *Exporter) Run(ctx context.Context, e Export, steps []solver.Step, outcome []*layers.Ref, p progress.Writer) (map[string]string, error) {
	r := &export{Export: e, x: x, p: p}
	if e.Merge || !e.Force || len(e.Mounts) > 0 {
		old, err := r.load(ctx)
		if err != nil {
			return nil, fmt.Errorf("read what is at %s: %w", e.Target.Title(), err)
		}
		r.reuse(old)
	}
	mine, err := r.collect(ctx, choose(steps, outcome, e.Max))
	if err != nil {
		return nil, err
	}
	if mine.Mounts, err = r.writeMounts(ctx); err != nil {
		return nil, err
	}
	if len(mine.Layers) == 0 && len(mine.Mounts) == 0 {
		r.note("skipping cache export for empty result")()
		return nil, nil
	}
	d, err := r.save(ctx, mine)
	if err != nil || d == nil {
		return nil, err
	}
	text, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("write descriptor: %w", err)
	}
	return map[string]string{ManifestKey: string(text)}, nil
}

// export is one export under way.
type export struct {
	Export
	x    *Exporter
	p    progress.Writer
	have map[string]Layer // by diffID: what the target had in the beginning
	// hadMounts are those that the target had then.
	hadMounts []Mount
	// chunks are those of them that are there, by what they unpack to; nil until somebody asks.
	chunks map[digest.Digest]ocispecs.Descriptor
}

// note shows a piece of work as a line of its own, from now until done is called.
func (r *export) note(what string) (done func()) {
	s := progress.Status{ID: what}
	started := r.x.now()
	s.Started = &started
	r.p.Status(s)
	return func() {
		completed := r.x.now()
		s.Completed = &completed
		r.p.Status(s)
	}
}

// load reads what is at the target now, as one cache; nil if there is nothing. What cannot be understood is replaced.
func (r *export) load(ctx context.Context) (*Cache, error) {
	all, err := r.Target.Load(ctx)
	var bad *FormatError
	if errors.As(err, &bad) {
		r.note(fmt.Sprintf("replacing what is at %s: %v", r.Target.Title(), err))()
		return nil, nil
	}
	if err != nil || len(all) == 0 {
		return nil, err
	}
	c := &Cache{}
	for _, one := range all {
		c.Merge(one, func(Layer) bool { return false })
	}
	return c, nil
}

// FormatError says that what is at a place is no cache that can be read.
type FormatError struct{ Err error }

func (e *FormatError) Error() string { return e.Err.Error() }
func (e *FormatError) Unwrap() error { return e.Err }

func (r *export) reuse(old *Cache) {
	r.have = map[string]Layer{}
	if old != nil {
		r.hadMounts = old.Mounts
	}
	if old == nil || r.Force {
		return
	}
	for _, l := range old.Layers {
		r.have[l.DiffID.String()] = l
	}
}

// choose picks the steps to export. Where only the outcome was asked for, these are the steps that made layers of it, and those that
// made nothing at all. A step's other outputs go with them, as a step is known as a whole.
func choose(steps []solver.Step, outcome []*layers.Ref, all bool) []solver.Step {
	part := map[layers.ID]bool{}
	for _, ref := range outcome {
		for _, id := range ref.IDs() {
			part[id] = true
		}
	}
	var list []solver.Step
	for _, s := range steps {
		switch s.Vertex.Export {
		case solver.ExportNever:
			continue
		case solver.ExportAlways:
		default:
			if !all && !within(s.Results, part) {
				continue
			}
		}
		list = append(list, s)
	}
	return list
}

// within tells whether one of the results consists of layers of the outcome, or all of them of nothing.
func within(results []solver.Result, part map[layers.ID]bool) bool {
	nothing := true
	for _, res := range results {
		ref := refOf(res)
		if ref == nil || len(ref.IDs()) == 0 {
			continue
		}
		nothing = false
		if !slices.ContainsFunc(ref.IDs(), func(id layers.ID) bool { return !part[id] }) {
			return true
		}
	}
	return nothing
}

// mediaTypeOf is that of a descriptor, or a generic one.
func mediaTypeOf(d ocispecs.Descriptor) string {
	if d.MediaType == "" {
		return "application/octet-stream"
	}
	return d.MediaType
}
