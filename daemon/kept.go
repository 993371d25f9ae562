package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/result"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/exporter/attestation"
	"github.com/slipwaybuild/slipway/solver/cachestore"
	"github.com/slipwaybuild/slipway/solver/layers"
)

// maxKept bounds what is kept of a build's result beside its layers, in bytes. Configs and attestations are much smaller.
const maxKept = 64 << 20

// kept is what a build made, in the form in which the history keeps it: enough to write outputs of it again. Layers are named, not
// held: as long as nobody prunes them, and space is not short, they are there.
type kept struct {
	Platforms     []keptPlatform    `json:"platforms"`
	MultiPlatform bool              `json:"multiPlatform,omitempty"`
	Metadata      map[string][]byte `json:"metadata,omitempty"`
	Epoch         *int64            `json:"epoch,omitempty"`
	Compat        int               `json:"compat,omitempty"`
	// Steps are there if the client asked for them; see [attrKeepSteps].
	Steps []keptStep `json:"steps,omitempty"`
}

type keptPlatform struct {
	ID           string            `json:"id"`
	Platform     ocispecs.Platform `json:"platform"`
	Stack        cachestore.Stack  `json:"stack"`
	Config       []byte            `json:"config,omitempty"`
	BaseConfig   []byte            `json:"baseConfig,omitempty"`
	Attestations []keptAttestation `json:"attestations,omitempty"`
}

// keptAttestation has either a Stack or a Predicate.
type keptAttestation struct {
	Kind      gwpb.AttestationKind   `json:"kind"`
	Metadata  map[string][]byte      `json:"metadata,omitempty"`
	Path      string                 `json:"path,omitempty"`
	Type      string                 `json:"type,omitempty"`
	Subjects  []result.InTotoSubject `json:"subjects,omitempty"`
	Stack     *cachestore.Stack      `json:"stack,omitempty"`
	Predicate []byte                 `json:"predicate,omitempty"`
}

// keepResult begins to put what a build made beside its record, while outputs are written: if one of them fails, it can be written
// later. The function it returns waits until that is done. That it cannot be kept is no fault of the build.
func (b *build) keepResult(ctx context.Context, in exporter.Input, steps []keptStep) (wait func()) {
	if !b.record.Recorded() {
		return func() {}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := b.writeKept(ctx, in, steps); err != nil && ctx.Err() == nil {
			b.engine.log.Warn("keep the result of a build for later outputs", "ref", b.ref, "error", err)
		}
	})
	return wg.Wait
}

func (b *build) writeKept(ctx context.Context, in exporter.Input, steps []keptStep) error {
	o, err := nameResult(ctx, in)
	if err != nil {
		return err
	}
	o.Steps = steps
	data, err := json.Marshal(o)
	if err != nil {
		return err
	}
	if len(data) > maxKept {
		return fmt.Errorf("%d bytes are more than the limit of %d", len(data), maxKept)
	}
	return b.record.Keep(ctx, data)
}

func nameResult(ctx context.Context, in exporter.Input) (kept, error) {
	o := kept{MultiPlatform: in.MultiPlatform, Metadata: in.Metadata, Epoch: in.SourceDateEpoch, Compat: in.Compat}
	for _, p := range in.Platforms {
		made := keptPlatform{ID: p.ID, Platform: p.Platform, Stack: cachestore.NameStack(p.Ref), Config: p.Config, BaseConfig: p.BaseConfig}
		for _, a := range p.Attestations {
			one := keptAttestation{Kind: a.Kind, Metadata: a.Metadata, Path: a.Path, Type: a.Type, Subjects: a.Subjects}
			if a.Ref != nil {
				stack := cachestore.NameStack(a.Ref)
				one.Stack = &stack
			} else {
				var err error
				if one.Predicate, err = a.Content(ctx, nil); err != nil {
					return o, fmt.Errorf("attestation %s: %w", a.Path, err)
				}
			}
			made.Attestations = append(made.Attestations, one)
		}
		o.Platforms = append(o.Platforms, made)
	}
	return o, nil
}

// keptOf reads what an earlier build made, by its ref or the beginning of it.
func (e *Engine) keptOf(ctx context.Context, name string) (ref string, o kept, err error) {
	if ref, err = e.history.Find(name); err != nil {
		return "", o, err
	}
	data, err := e.history.Outcome(ctx, ref)
	if err != nil {
		return ref, o, err
	}
	if data == nil {
		return ref, o, fmt.Errorf("%w: build %s left no result: it failed, or asked for something else than a build", ErrInvalidRequest, ref)
	}
	if err := json.Unmarshal(data, &o); err != nil {
		return ref, o, fmt.Errorf("read what build %s made: %w", ref, err)
	}
	return ref, o, nil
}

// keptInput takes hold of the layers of a result that was kept. release gives them back; it is there without an error, too.
func (e *Engine) keptInput(ctx context.Context, ref string, o kept) (in exporter.Input, release func() error, err error) {
	var held []*layers.Ref
	release = func() error {
		var errs []error
		for _, r := range held {
			errs = append(errs, r.Release())
		}
		return errors.Join(errs...)
	}
	find := func(s cachestore.Stack) (*layers.Ref, error) {
		r, err := e.cache.Find(ctx, s)
		if errors.Is(err, layers.ErrNotFound) {
			return nil, fmt.Errorf("%w: the result of build %s is no longer complete, layers were pruned: build it again", ErrPruned, ref)
		}
		if err == nil {
			held = append(held, r)
		}
		return r, err
	}
	in = exporter.Input{MultiPlatform: o.MultiPlatform, Metadata: o.Metadata, SourceDateEpoch: o.Epoch, Compat: o.Compat}
	if in.Metadata == nil {
		in.Metadata = map[string][]byte{}
	}
	for _, was := range o.Platforms {
		p := exporter.Platform{ID: was.ID, Platform: was.Platform, Config: was.Config, BaseConfig: was.BaseConfig}
		if p.Ref, err = find(was.Stack); err != nil {
			return in, release, err
		}
		for _, a := range was.Attestations {
			one := attestation.Attestation{Kind: a.Kind, Metadata: a.Metadata, Path: a.Path, Type: a.Type, Subjects: a.Subjects}
			if a.Stack != nil {
				if one.Ref, err = find(*a.Stack); err != nil {
					return in, release, err
				}
			} else {
				one.Content = func(context.Context, []ocispecs.Descriptor) ([]byte, error) { return a.Predicate, nil }
			}
			p.Attestations = append(p.Attestations, one)
		}
		in.Platforms = append(in.Platforms, p)
	}
	return in, release, nil
}
