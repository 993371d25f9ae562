package imageservice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/source/image/manifest"
	"github.com/slipwaybuild/slipway/solver/source/registry"
	"golang.org/x/sync/errgroup"
)

const (
	// pullParallel bounds the layers of one image that are downloaded at a time.
	pullParallel = 3
	// tellEvery is how often a download is told of.
	tellEvery = 100 * time.Millisecond
)

// Pull brings an image from its registry: the index, the image for one platform, and its layers, compressed as they are; a build that
// uses a layer unpacks it. What is here is not fetched again, and what an earlier attempt left is gone on with.
func (s *Service) Pull(ctx context.Context, named reference.Named, platform *ocispecs.Platform, sessions Sessions, p Progress) error {
	named = reference.TagNameOnly(named)
	pull := &pull{s: s, name: named.String(), p: p, platform: s.platform}
	if platform != nil {
		pull.platform = *platform
	}
	resolver := s.registry.Resolver(registry.ResolverOptions{Sessions: sessions})
	_, root, err := resolver.Resolve(ctx, pull.name)
	if err != nil {
		return err
	}
	if pull.from, err = resolver.Fetcher(ctx, pull.name); err != nil {
		return err
	}
	p.send(Update{ID: tagOf(named), Status: "Pulling from " + reference.Path(named)})
	err = s.leased(ctx, func(leased context.Context) error {
		pull.work = downloads{store: s.images.Content(), plain: ctx, leased: leased}
		return pull.run(ctx, leased, root)
	})
	if err != nil {
		return err
	}
	s.publish(events.ActionPull, reference.FamiliarString(named), reference.FamiliarName(named))
	p.send(Update{Status: "Digest: " + root.Digest.String()})
	status := "Status: Downloaded newer image for "
	if pull.known {
		status = "Status: Image is up to date for "
	}
	p.send(Update{Status: status + reference.FamiliarString(named)})
	return nil
}

// tagOf is the tag of a name, or all of it if it has a digest.
func tagOf(named reference.Named) string {
	if _, ok := named.(reference.Digested); !ok {
		if t, ok := named.(reference.Tagged); ok {
			return t.Tag()
		}
	}
	return reference.FamiliarString(named)
}

type pull struct {
	s        *Service
	name     string
	platform ocispecs.Platform
	from     remotes.Fetcher
	work     downloads
	p        Progress
	known    bool // there was nothing to do
}

func (w *pull) run(ctx, leased context.Context, root ocispecs.Descriptor) error {
	had, err := w.s.images.Get(ctx, w.name)
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	w.known = err == nil && had.Target.Digest == root.Digest
	get := manifest.Through(w.s.images.Content(), func(ctx context.Context, d ocispecs.Descriptor) (io.ReadCloser, error) {
		w.known = false
		return w.from.Fetch(ctx, d)
	})
	img, err := manifest.Read(leased, get, root, w.platform)
	if err != nil {
		return fmt.Errorf("image %s: %w", w.name, err)
	}
	for _, d := range append(slices.Clone(img.Path), img.Manifest, img.Config) {
		if err := w.work.take(d.Digest); err != nil {
			return err
		}
	}
	if err := w.layers(ctx, img); err != nil {
		return err
	}
	return w.enter(leased, root, img)
}

// layers brings all layers.
func (w *pull) layers(ctx context.Context, img *manifest.Image) error {
	eg, egCtx := errgroup.WithContext(ctx)
	eg.SetLimit(pullParallel)
	var wanted []ocispecs.Descriptor
	for _, l := range img.Layers {
		has, err := w.work.has(l.Descriptor.Digest)
		if err != nil {
			return err
		}
		if has && !w.known {
			w.p.layer(l.Descriptor.Digest, "Already exists", 0, 0)
		}
		if !has {
			wanted = append(wanted, l.Descriptor)
		}
	}
	for _, d := range wanted {
		w.known = false
		w.p.layer(d.Digest, "Pulling fs layer", 0, 0)
	}
	for _, d := range wanted {
		eg.Go(func() error { return w.layer(egCtx, d) })
	}
	return eg.Wait()
}

func (w *pull) layer(ctx context.Context, d ocispecs.Descriptor) error {
	var last time.Time
	err := w.work.bring(ctx, w.from, d, func(n int64) {
		if now := time.Now(); now.Sub(last) > tellEvery || n == d.Size {
			last = now
			w.p.layer(d.Digest, "Downloading", n, d.Size)
		}
	})
	if err != nil {
		return err
	}
	w.p.layer(d.Digest, "Download complete", 0, 0)
	w.p.layer(d.Digest, "Pull complete", 0, 0)
	return nil
}

// enter gives the image its name. The layer store learns where the layers came from, so that a push of them elsewhere in the same
// registry needs no bytes.
func (w *pull) enter(ctx context.Context, root ocispecs.Descriptor, img *manifest.Image) (err error) {
	r, err := w.s.layers.AddRemote(ctx, manifest.Blobs(w.name, img.Layers)...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Release()) }()
	c, err := w.s.read(ctx, root)
	if err != nil {
		return err
	}
	if err := w.s.put(ctx, w.name, c); err != nil {
		return err
	}
	return w.s.noteRegistry(ctx, w.name, root.Digest, root.Digest)
}
