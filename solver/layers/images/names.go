package images

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/layers"
)

// Put creates the name, or moves it to the target. The target and the manifests under it must be in Content; layers need not
// be, unless it is shared and they are not in the layer store either ([Store.Bring]). refs are the file systems of the image, one per platform, packed ([layers.Store.Solidify]); they stay the caller's, and
// the store takes its own hold. Without refs, what is held for the target stays as it is. The image that had the name before
// becomes dangling unless it has other names. An empty name makes the image dangling from the start, if it has no name yet.
func (s *Store) Put(ctx context.Context, name string, target ocispecs.Descriptor, refs ...*layers.Ref) (err error) {
	if err := target.Digest.Validate(); err != nil {
		return fmt.Errorf("name image %q: %w", name, err)
	}
	ctx, done, err := s.leased(ctx)
	if err != nil {
		return fmt.Errorf("name image %q: %w", name, err)
	}
	defer func() { err = errors.Join(err, done(context.WithoutCancel(ctx))) }()
	if err := s.Bring(ctx, target, nil, refs...); err != nil {
		return fmt.Errorf("name image %q: %w", name, err)
	}
	if err := s.labelChildren(ctx, target); err != nil {
		return fmt.Errorf("name image %q: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.hold(ctx, target.Digest, refs); err != nil {
		return fmt.Errorf("keep the layers of image %q: %w", name, err)
	}
	err = s.backing.Atomically(ctx, func(ctx context.Context) error { return s.rename(ctx, name, target) })
	if err != nil {
		err = fmt.Errorf("name image %q: %w", name, err)
		return errors.Join(err, s.unholdUnnamed(context.WithoutCancel(ctx), target.Digest))
	}
	return nil
}

// Stands tells whether all is as Put with the same arguments would leave it, and whether the given contents are there: then there is
// nothing to be written. Elsewhere than in a store of one's own the answer is no. refs are as for Put.
func (s *Store) Stands(ctx context.Context, name string, target ocispecs.Descriptor, contents []digest.Digest, refs ...*layers.Ref) (bool, error) {
	if s.backing.Shared() || s.layers == nil || name == "" || len(refs) == 0 {
		return false, nil
	}
	have, err := s.images.Get(ctx, name)
	if err != nil || !sameTarget(have.Target, target) {
		return false, ignoreNotFound(err)
	}
	for _, d := range contents {
		if _, err := s.content.Info(ctx, d); err != nil {
			return false, ignoreNotFound(err)
		}
	}
	return s.holds(ctx, target.Digest, refs)
}

// sameTarget compares what names keep of their targets.
func sameTarget(a, b ocispecs.Descriptor) bool {
	return a.Digest == b.Digest && a.MediaType == b.MediaType && a.Size == b.Size && maps.Equal(a.Annotations, b.Annotations)
}

// rename runs inside one transaction where there are such: a crash leaves all of it or nothing. Elsewhere the order is one in
// which no image is without a name at any time.
func (s *Store) rename(ctx context.Context, name string, target ocispecs.Descriptor) error {
	all, err := s.images.List(ctx)
	if err != nil {
		return err
	}
	if name == "" {
		if countDigest(all, target.Digest) > 0 {
			return nil
		}
		name = Dangling(target.Digest)
	}
	_, err = s.images.Create(ctx, images.Image{Name: name, Target: target})
	if errdefs.IsAlreadyExists(err) {
		err = s.move(ctx, all, name, target)
	}
	if err != nil {
		return err
	}
	dangling := Dangling(target.Digest)
	if name == dangling || !hasName(all, dangling) {
		return nil
	}
	return ignoreNotFound(s.images.Delete(ctx, dangling))
}

func ignoreNotFound(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// move gives an existing name to target. all are the images before.
func (s *Store) move(ctx context.Context, all []Image, name string, target ocispecs.Descriptor) error {
	old, err := s.images.Get(ctx, name)
	if err != nil {
		return err
	}
	if old.Target.Digest != target.Digest && countDigest(all, old.Target.Digest) <= 1 {
		// The other user of a shared store may have been faster.
		_, err := s.images.Create(ctx, images.Image{Name: Dangling(old.Target.Digest), Target: old.Target, Labels: old.Labels})
		if err != nil && !errdefs.IsAlreadyExists(err) {
			return err
		}
	}
	_, err = s.images.Update(ctx, images.Image{Name: name, Target: target}, "target")
	return err
}

// Get looks a name up.
func (s *Store) Get(ctx context.Context, name string) (Image, error) { return s.images.Get(ctx, name) }

// List lists all images, dangling ones too, by name.
func (s *Store) List(ctx context.Context) ([]Image, error) { return s.images.List(ctx) }

// Delete removes a name. With its last name an image is gone: its layers are given back and its content goes with the next GC.
func (s *Store) Delete(ctx context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	image, err := s.images.Get(ctx, name)
	if err != nil {
		return err
	}
	// One who deletes it at the same time has done what was wanted.
	if err := ignoreNotFound(s.images.Delete(ctx, name)); err != nil {
		return fmt.Errorf("delete image %q: %w", name, err)
	}
	// The name is gone; a caller who leaves now must not leave layers held for nothing.
	if err := s.unholdUnnamed(context.WithoutCancel(ctx), image.Target.Digest); err != nil {
		return fmt.Errorf("give back the layers of image %q: %w", name, err)
	}
	return nil
}

// labelChildren tells the garbage collector what the target refers to. Manifests of other platforms need not be there.
func (s *Store) labelChildren(ctx context.Context, target ocispecs.Descriptor) error {
	if _, err := s.content.Info(ctx, target.Digest); err != nil {
		return err
	}
	return images.Walk(ctx, images.SetChildrenLabels(s.content, s.children), target)
}

// children lists what a manifest or index names; nothing if it is not there.
func (s *Store) children(ctx context.Context, d ocispecs.Descriptor) ([]ocispecs.Descriptor, error) {
	if !images.IsManifestType(d.MediaType) && !images.IsIndexType(d.MediaType) {
		return nil, nil
	}
	found, err := images.Children(ctx, s.content, d)
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	return found, err
}

// digests returns the targets of all names.
func (s *Store) digests(ctx context.Context) (map[digest.Digest]bool, error) {
	all, err := s.images.List(ctx)
	if err != nil {
		return nil, err
	}
	out := make(map[digest.Digest]bool, len(all))
	for _, i := range all {
		out[i.Target.Digest] = true
	}
	return out, nil
}

func countDigest(all []Image, d digest.Digest) int {
	n := 0
	for _, i := range all {
		if i.Target.Digest == d {
			n++
		}
	}
	return n
}

func hasName(all []Image, name string) bool {
	for _, i := range all {
		if i.Name == name {
			return true
		}
	}
	return false
}
