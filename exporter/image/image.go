// Package image is the output that puts an image into the local image store, and pushes it if asked to.
//
// Layers are neither copied nor compressed for the store: it names those of the layer store, and those of registries as the
// registries have them, pulled or not. A store that is shared with others gets them in just this form, and unpacks them if it is
// asked to. They are compressed for pushing.
package image

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/exporter/manifest"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/images"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// Types are the output's types in requests. "moby" is what docker's own clients ask for: its answer names the image by its
// config, as docker does.
const (
	Type     = "image"
	TypeMoby = "moby"
)

// Pushers give access to registries with the credentials of the sessions that a build has now. The resolver must be an
// [Uploader], too.
type Pushers func(sessions func() *session.Group, insecure bool) remotes.Resolver

// Options goes with [New].
type Options struct {
	Layers *layers.Store
	Images *images.Store
	// Registry serves pushing; nil refuses it.
	Registry Pushers
}

// New returns the factory; moby chooses docker's way of naming images.
func New(o Options, moby bool) exporter.Factory {
	return func(_ int, a map[string]string) (exporter.Exporter, error) {
		s, err := parse(a)
		if err != nil {
			return nil, err
		}
		if s.push && o.Registry == nil {
			return nil, errors.New("pushing is not configured")
		}
		if s.incomplete && s.unpack {
			return nil, errors.New(`exporter option "store-allow-incomplete=true" conflicts with "unpack=true": what is unpacked must be there`)
		}
		return &image{
			Options:   o,
			settings:  s,
			moby:      moby,
			assembler: &manifest.Assembler{Layers: o.Layers, Content: o.Images.Content(), Shared: o.Images.Shared()},
		}, nil
	}
}

type image struct {
	Options
	settings
	moby      bool
	assembler *manifest.Assembler
}

func (x *image) typ() string {
	if x.moby {
		return TypeMoby
	}
	return Type
}

func (*image) Name() string { return "exporting to image" }

// Export assembles the image, stores it under its names and pushes it.
func (x *image) Export(ctx context.Context, in exporter.Input, p progress.Writer) (_ map[string]string, err error) {
	chosen, err := x.manifest.At(in, x.typ())
	if err != nil {
		return nil, err
	}
	names, err := x.names.Resolve(string(in.Metadata[exptypes.ExporterImageNameKey]))
	if err != nil {
		return nil, err
	}
	if x.push && len(names) == 0 {
		return nil, errors.New("an image without a name cannot be pushed")
	}
	ctx, done, err := x.Images.WithLease(ctx)
	if err != nil {
		return nil, fmt.Errorf("take lease for image: %w", err)
	}
	defer func() { err = errors.Join(err, done(context.WithoutCancel(ctx))) }()
	in, release, err := x.assembler.Rewrite(ctx, in, chosen, p)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, release()) }()
	if err := x.unpackAll(ctx, in, p); err != nil {
		return nil, err
	}
	var img *manifest.Image
	err = step(p, "exporting layers", func() (err error) {
		o := chosen
		o.Names = names
		img, err = x.assembler.Image(ctx, x.attested(in, p), o, p)
		return err
	})
	if err != nil {
		return nil, err
	}
	said := names
	if x.store {
		if said, err = x.keep(ctx, in, img, names, p); err != nil {
			return nil, err
		}
	}
	if x.push {
		if err := x.pushAll(ctx, in, img, names, p); err != nil {
			return nil, err
		}
	}
	return x.answer(img, said)
}

// unpackAll brings the layers here, where steps and readers find them without further unpacking. Without it those of registries stay
// there until they are wanted.
func (x *image) unpackAll(ctx context.Context, in exporter.Input, p progress.Writer) error {
	if !x.unpack || !x.store || x.Images.Shared() { // a shared store unpacks what it is given
		return nil
	}
	for _, platform := range in.Platforms {
		if err := x.Layers.Fetch(ctx, platform.Ref, in.Fetcher, p); err != nil {
			return fmt.Errorf("unpack image for %s: %w", platform.ID, err)
		}
	}
	return nil
}

func (x *image) answer(img *manifest.Image, names []string) (map[string]string, error) {
	answer, err := img.Answer(names)
	if id, ok := answer[exptypes.ExporterImageConfigDigestKey]; ok && x.moby {
		answer[exptypes.ExporterImageDigestKey] = id
	}
	return answer, err
}

// step shows a piece of work as one status.
func step(p progress.Writer, name string, work func() error) error {
	m := exporter.Meter(p, progress.Status{ID: name})
	defer m.Done()
	return work()
}
