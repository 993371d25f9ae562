package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/layers"
	"golang.org/x/sync/errgroup"
)

const (
	// bringAtOnce is how many layers of an image are written at a time.
	bringAtOnce = 4
	// bringTries is how often a layer that breaks off is begun.
	bringTries = 3
	// copyBuffer is how many bytes of a layer are written at once.
	copyBuffer = 1 << 20
	// maxDocument bounds manifests and configs that are read whole.
	maxDocument = 16 << 20
)

// Bring writes the layers of refs, in the form in which the manifests under target name them, into a content store that is shared:
// uncompressed ones from the layer store, others through f, which may be nil if there are none. What is there already is not
// read. The context's lease keeps them. In a store that is not shared there is nothing to be done.
func (s *Store) Bring(ctx context.Context, target ocispecs.Descriptor, f layers.Fetcher, refs ...*layers.Ref) error {
	if !s.backing.Shared() || s.layers == nil || len(refs) == 0 {
		return nil
	}
	stacks := map[digest.Digest]place{}
	for _, r := range refs {
		for i, l := range r.Layers() {
			if l.DiffID != "" {
				stacks[l.DiffID] = place{r, i, l.Remote}
			}
		}
	}
	wanted, err := s.wanted(ctx, target, stacks)
	if err != nil {
		return fmt.Errorf("read manifests of %s: %w", target.Digest, err)
	}
	eg, egCtx := errgroup.WithContext(ctx)
	eg.SetLimit(bringAtOnce)
	for _, w := range wanted {
		eg.Go(func() error {
			if err := s.bring(egCtx, w, f); err != nil {
				return fmt.Errorf("store layer %s: %w", w.desc.Digest, err)
			}
			return nil
		})
	}
	return eg.Wait()
}

// place is where the layer store has a layer.
type place struct {
	ref    *layers.Ref
	i      int
	remote *layers.RemoteBlob // where it can be had from; may be nil
}

// wantedLayer is a layer as a manifest names it.
type wantedLayer struct {
	place
	desc   ocispecs.Descriptor
	diffID digest.Digest
}

// wanted lists the layers that the manifests under target name and stacks have, each once. Manifests that are not there, and those
// that are no images, name none.
func (s *Store) wanted(ctx context.Context, target ocispecs.Descriptor, stacks map[digest.Digest]place) ([]wantedLayer, error) {
	var found []wantedLayer
	seen := map[digest.Digest]bool{}
	err := images.Walk(ctx, images.HandlerFunc(func(ctx context.Context, d ocispecs.Descriptor) ([]ocispecs.Descriptor, error) {
		if !images.IsManifestType(d.MediaType) {
			return s.children(ctx, d)
		}
		var m ocispecs.Manifest
		var c ocispecs.Image
		if ok, err := s.document(ctx, d, &m); !ok || err != nil {
			return nil, err
		}
		if ok, err := s.document(ctx, m.Config, &c); !ok || err != nil {
			return nil, err
		}
		if len(m.Layers) != len(c.RootFS.DiffIDs) {
			return nil, nil
		}
		for i, diffID := range c.RootFS.DiffIDs {
			if p, ok := stacks[diffID]; ok && !seen[m.Layers[i].Digest] {
				seen[m.Layers[i].Digest] = true
				found = append(found, wantedLayer{p, m.Layers[i], diffID})
			}
		}
		return nil, nil
	}), target)
	return found, err
}

// document reads a manifest or config; false if it is not there.
func (s *Store) document(ctx context.Context, d ocispecs.Descriptor, to any) (bool, error) {
	if d.Digest == "" || d.Size > maxDocument {
		return false, nil
	}
	b, err := content.ReadBlob(ctx, s.content, d)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(b, to); err != nil {
		return false, fmt.Errorf("%s: %w", d.Digest, err)
	}
	return true, nil
}

// bring writes one layer.
func (s *Store) bring(ctx context.Context, w wantedLayer, f layers.Fetcher) (err error) {
	for range bringTries {
		if err = s.copyLayer(ctx, w, f); err == nil || ctx.Err() != nil || errdefs.IsNotFound(err) {
			return err
		}
		s.log.DebugContext(ctx, "storing a layer broke off", "layer", w.desc.Digest, "error", err)
	}
	return err
}

func (s *Store) copyLayer(ctx context.Context, w wantedLayer, f layers.Fetcher) error {
	return CopyLayer(ctx, s.content, w.desc, w.diffID, func(ctx context.Context) (io.ReadCloser, error) { return s.openLayer(ctx, w, f) })
}

// CopyLayer writes the bytes of one layer into a content store, verified, unless they are there. The lease in the context keeps
// them. open is called once at most. An interrupted attempt leaves nothing.
func CopyLayer(ctx context.Context, store content.Store, d ocispecs.Descriptor, diffID digest.Digest, open func(context.Context) (io.ReadCloser, error)) (err error) {
	ref := "slipway-layer-" + d.Digest.String()
	out, err := content.OpenWriter(ctx, store, content.WithRef(ref), content.WithDescriptor(d))
	if errdefs.IsAlreadyExists(err) {
		return nil // and leased from now on
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = store.Abort(context.WithoutCancel(ctx), ref) // the error is told already
		}
		_ = out.Close() // committed, or given up
	}()
	in, err := open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	if err := out.Truncate(0); err != nil {
		return err
	}
	// Every write is a message: they are large, whatever either end would choose.
	if _, err := io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{in}, make([]byte, copyBuffer)); err != nil {
		return err
	}
	err = out.Commit(ctx, d.Size, d.Digest, content.WithLabels(map[string]string{labelUncompressed: diffID.String()}))
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// labelUncompressed tells containerd the diffID of a layer.
const labelUncompressed = "containerd.io/uncompressed"

// openLayer opens a layer in the form that the manifest names.
func (s *Store) openLayer(ctx context.Context, w wantedLayer, f layers.Fetcher) (io.ReadCloser, error) {
	if w.desc.Digest == w.diffID {
		tar, _, err := s.layers.Tar(ctx, w.ref, w.i)
		if err == nil || !errors.Is(err, layers.ErrNotLocal) {
			return tar, err
		}
	}
	switch {
	case w.remote == nil || w.remote.Descriptor.Digest != w.desc.Digest:
		return nil, fmt.Errorf("it is neither in the content store nor, in this form, in the layer store: %w", errdefs.ErrNotFound)
	case f == nil:
		return nil, fmt.Errorf("it is at %s and was not fetched: %w", w.remote.Ref, errdefs.ErrNotFound)
	}
	return f.Fetch(ctx, *w.remote)
}

// Unpack makes an image that was put into the store ready for containers of those who share it; see [Backing].
func (s *Store) Unpack(ctx context.Context, name string, target ocispecs.Descriptor) (err error) {
	ctx, done, err := s.leased(ctx)
	if err != nil {
		return fmt.Errorf("unpack image %q: %w", name, err)
	}
	defer func() { err = errors.Join(err, done(context.WithoutCancel(ctx))) }()
	if err := s.backing.Unpack(ctx, Image{Name: name, Target: target}); err != nil {
		return fmt.Errorf("unpack image %q: %w", name, err)
	}
	return nil
}
