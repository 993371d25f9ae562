package daemon

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/frontend"
)

// maxManifest bounds what is looked at to find an image's manifest, in bytes.
const maxManifest = 1 << 20

// name gives names to the image that a build ended with. It is in the store unless the build made nothing of its base image, of which
// the store has no more than what sources keep.
func (s stepImages) name(ctx context.Context, id digest.Digest, res *frontend.Result, names []string) (err error) {
	if len(names) == 0 {
		return nil
	}
	target, err := s.manifestOf(ctx, id)
	if err != nil {
		return fmt.Errorf("name image %s: %w", id, err)
	}
	stack, err := s.build.stackOfResult(ctx, res)
	if err != nil {
		return err
	}
	store := s.build.engine.images
	if store.Shared() {
		if err := store.Bring(ctx, target, s.build.engine.fetcher(s.build.groupNow), stack); err != nil {
			return fmt.Errorf("name image %s: %w", id, err)
		}
	}
	for _, name := range names {
		if err := store.Put(ctx, name, target, stack); err != nil {
			return err
		}
	}
	return nil
}

// manifestOf finds the manifest of an image: among those of the store, or in all content.
func (s stepImages) manifestOf(ctx context.Context, id digest.Digest) (ocispecs.Descriptor, error) {
	found, err := s.byID(ctx, id.Encoded())
	if err != nil {
		return ocispecs.Descriptor{}, err
	}
	if len(found) > 0 {
		return found[0].target, nil
	}
	var small []ocispecs.Descriptor
	err = s.build.engine.images.Content().Walk(ctx, func(i content.Info) error {
		if i.Size <= maxManifest {
			small = append(small, ocispecs.Descriptor{Digest: i.Digest, Size: i.Size})
		}
		return nil
	})
	if err != nil {
		return ocispecs.Descriptor{}, err
	}
	for _, d := range small {
		if img, err := s.read(ctx, d); err == nil && img.ID == id {
			return img.target, nil
		}
	}
	return ocispecs.Descriptor{}, fmt.Errorf("its manifest is not here: %w", errdefs.ErrNotFound)
}
