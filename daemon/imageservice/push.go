package imageservice

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/layers/images"
	"github.com/slipwaybuild/slipway/solver/source/registry"
	"golang.org/x/sync/errgroup"
)

// pushParallel bounds the layers of one image that are pushed at a time.
const pushParallel = 4

// Pushed is what a registry has after a push.
type Pushed struct {
	Tag    string
	Digest digest.Digest
	Size   int64
}

// Push brings the images with a name to its registry: that with the tag, or, given a repository alone, all with tags of it. told
// learns of each when it is there.
func (s *Service) Push(ctx context.Context, named reference.Named, sessions Sessions, p Progress, told func(Pushed)) error {
	targets, err := s.pushed(ctx, named)
	if err != nil {
		return err
	}
	p.send(Update{Status: "The push refers to repository [" + named.Name() + "]"})
	for _, t := range targets {
		if err := s.push(ctx, t, sessions, p, told); err != nil {
			return err
		}
	}
	return nil
}

// pushed lists what a name stands for.
func (s *Service) pushed(ctx context.Context, named reference.Named) ([]reference.NamedTagged, error) {
	if _, ok := named.(reference.Digested); ok {
		return nil, invalid("cannot push a digest reference: name the image by its tag")
	}
	missing := &classed{fmt.Errorf("An image does not exist locally with the tag: %s", reference.FamiliarName(named)), errdefs.ErrNotFound}
	if tagged, ok := named.(reference.NamedTagged); ok {
		_, err := s.images.Get(ctx, tagged.String())
		if errdefs.IsNotFound(err) {
			err = missing
		}
		if err != nil {
			return nil, err
		}
		return []reference.NamedTagged{tagged}, nil
	}
	all, err := s.images.List(ctx)
	if err != nil {
		return nil, err
	}
	var list []reference.NamedTagged
	for _, i := range all {
		n, err := reference.ParseNormalizedNamed(i.Name)
		if err != nil || n.Name() != named.Name() {
			continue
		}
		if t, ok := n.(reference.NamedTagged); ok {
			list = append(list, t)
		}
	}
	if len(list) == 0 {
		return nil, missing
	}
	return list, nil
}

func (s *Service) push(ctx context.Context, named reference.NamedTagged, sessions Sessions, p Progress, told func(Pushed)) error {
	image, err := s.images.Get(ctx, named.String())
	if err != nil {
		return err
	}
	var root ocispecs.Descriptor
	err = s.leased(ctx, func(leased context.Context) (err error) {
		c, err := s.read(leased, image.Target)
		if err != nil {
			return err
		}
		b, err := s.blobsOf(ctx, leased, sessions, c)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, b.close()) }()
		as, err := s.asItIs(ctx, image.Target.Digest)
		if err != nil {
			return err
		}
		parcel, err := s.pack(leased, c, b, as)
		if err != nil {
			return err
		}
		root = parcel.root
		return parcel.send(leased, b, named, p)
	})
	if err != nil {
		return err
	}
	if err := ignoreMissing(s.noteRegistry(ctx, image.Name, image.Target.Digest, root.Digest)); err != nil {
		return err
	}
	name := reference.FamiliarString(named)
	s.publish(events.ActionPush, name, reference.FamiliarName(named))
	p.send(Update{Status: fmt.Sprintf("%s: digest: %s size: %d", named.Tag(), root.Digest, root.Size)})
	told(Pushed{Tag: named.Tag(), Digest: root.Digest, Size: root.Size})
	return nil
}

// asItIs tells whether an image came from a registry as it is, and so should go to another.
func (s *Service) asItIs(ctx context.Context, d digest.Digest) (bool, error) {
	list, err := s.groups(ctx)
	for _, g := range list {
		if g.id() == d {
			return slices.ContainsFunc(g.names, func(n images.Image) bool { return atRegistry(n) == d }), err
		}
	}
	return false, err
}

// parcel is what is pushed: layers and configs, then manifests and indexes, those last that refer to the others.
type parcel struct {
	root      ocispecs.Descriptor
	layers    []ocispecs.Descriptor
	documents []ocispecs.Descriptor
	// made are documents that are not in the content store.
	made map[digest.Digest][]byte
}

// send pushes all of it to a repository.
func (c *parcel) send(ctx context.Context, b *blobs, named reference.NamedTagged, p Progress) error {
	repo := reference.TrimNamed(named).String() + "@" + c.root.Digest.String()
	for _, d := range c.layers {
		p.layer(d.Digest, "Preparing", 0, 0)
	}
	eg, egCtx := errgroup.WithContext(ctx)
	eg.SetLimit(pushParallel)
	for _, d := range c.layers {
		eg.Go(func() error { return sendLayer(egCtx, b, repo, d, p) })
	}
	if err := eg.Wait(); err != nil {
		return err
	}
	from := documents{b, c.made}
	for _, d := range c.documents {
		ref := repo
		if d.Digest == c.root.Digest {
			ref = named.String()
		}
		if err := b.resolver.Push(ctx, ref, from, d, nil); err != nil {
			return err
		}
	}
	return nil
}

// sendLayer pushes a layer unless the repository has it, or can mount it from where it came.
func sendLayer(ctx context.Context, b *blobs, repo string, d ocispecs.Descriptor, p Progress) error {
	marked := d
	r, remote := b.remote[d.Digest]
	if remote {
		marked = registry.MountFrom(d, repo, r.Ref)
	}
	from := &watched{Provider: b}
	var last time.Time
	err := b.resolver.Push(ctx, repo, from, marked, func(n int64) {
		if now := time.Now(); now.Sub(last) > tellEvery || n == d.Size {
			last = now
			p.layer(d.Digest, "Pushing", n, d.Size)
		}
	})
	switch {
	case err != nil:
		return err
	case from.read:
		p.layer(d.Digest, "Pushed", 0, 0)
	default:
		p.layer(d.Digest, "Layer already exists", 0, 0)
	}
	return nil
}

// watched remembers whether the bytes were asked for. It belongs to one goroutine.
type watched struct {
	content.Provider
	read bool
}

func (w *watched) ReaderAt(ctx context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	w.read = true
	return w.Provider.ReaderAt(ctx, d)
}
