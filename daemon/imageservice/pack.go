package imageservice

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	cimages "github.com/containerd/containerd/v2/core/images"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/exporter/compression"
	"github.com/slipwaybuild/slipway/solver/source/image/manifest"
)

// pack prepares an image for a registry. Layers that are stored uncompressed are compressed, which changes the manifest and what
// refers to it; unless the image is to go as it is, or attestations are about the manifest: those would then be about nothing.
func (s *Service) pack(ctx context.Context, c *contents, b *blobs, asItIs bool) (*parcel, error) {
	out := &parcel{root: c.target, made: map[digest.Digest][]byte{}}
	if len(c.missing) > 0 {
		// The index cannot go without what it lists. Docker sends the one image that there is.
		if len(c.singles) != 1 || len(c.attestations) > 0 {
			return nil, conflict("the image has %d platforms that are not here, and the registry takes it whole only: pull them first, or tag one of its manifests",
				len(c.missing))
		}
		out.root = c.singles[0].Manifest
	}
	p := packer{s: s, b: b, out: out, compress: !asItIs && len(c.attestations) == 0, packed: map[digest.Digest]ocispecs.Descriptor{}}
	for _, one := range c.singles {
		if err := p.single(ctx, one); err != nil {
			return nil, err
		}
	}
	for _, d := range c.attestations {
		if err := p.attestation(ctx, d); err != nil {
			return nil, err
		}
	}
	if len(c.missing) == 0 {
		for _, d := range slices.Backward(c.indexes) {
			if err := p.index(ctx, d); err != nil {
				return nil, err
			}
		}
	}
	if d, ok := p.packed[out.root.Digest]; ok {
		out.root = d
	}
	return out, nil
}

type packer struct {
	s        *Service
	b        *blobs
	out      *parcel
	compress bool
	packed   map[digest.Digest]ocispecs.Descriptor // what replaces a manifest or index
}

// document adds content that came from somewhere else, or was made here.
func (p *packer) document(d ocispecs.Descriptor, made []byte) {
	if made != nil {
		p.out.made[d.Digest] = made
	}
	p.out.documents = append(p.out.documents, d)
}

// layer adds a layer, once.
func (p *packer) layer(d ocispecs.Descriptor) {
	if !slices.ContainsFunc(p.out.layers, func(o ocispecs.Descriptor) bool { return o.Digest == d.Digest }) {
		p.out.layers = append(p.out.layers, d)
	}
}

func (p *packer) single(ctx context.Context, one *manifest.Image) error {
	changed := false
	list := make([]ocispecs.Descriptor, len(one.Layers))
	for i, l := range one.Layers {
		list[i] = l.Descriptor
		if p.compress && l.Descriptor.Digest == l.DiffID {
			d, err := p.compressed(ctx, l)
			if err != nil {
				return err
			}
			list[i], changed = d, true
		}
		p.layer(list[i])
	}
	p.document(one.Config, nil)
	if !changed {
		p.document(one.Manifest, nil)
		return nil
	}
	return p.rewrite(ctx, one.Manifest, "layers", list)
}

// compressed is a layer as a registry should have it.
func (p *packer) compressed(ctx context.Context, l manifest.Layer) (ocispecs.Descriptor, error) {
	spec := compression.Spec{Type: compression.Gzip, Level: compression.DefaultLevel}
	store := p.s.images.Content()
	d, err := compression.Compress(ctx, store, spec, l.DiffID, func(ctx context.Context) (io.ReadCloser, error) { return p.b.open(ctx, l.Descriptor) })
	if err != nil {
		return d, err
	}
	d.MediaType, err = spec.Type.MediaType(!cimages.IsDockerType(l.Descriptor.MediaType))
	if err != nil {
		return d, err
	}
	d.Annotations = l.Descriptor.Annotations
	// The next push of anything with this layer need not compress it again.
	return d, p.s.images.Keep(ctx, d.Digest)
}

// rewrite replaces one field of a manifest or index, and leaves all else as it is.
func (p *packer) rewrite(ctx context.Context, d ocispecs.Descriptor, field string, value any) error {
	b, err := content.ReadBlob(ctx, p.s.images.Content(), d)
	if err != nil {
		return err
	}
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(b, &fields); err != nil {
		return fmt.Errorf("read %s: %w", d.Digest, err)
	}
	if fields[field], err = json.Marshal(value); err != nil {
		return err
	}
	if b, err = json.Marshal(fields); err != nil {
		return err
	}
	made := d
	made.Digest, made.Size = digest.FromBytes(b), int64(len(b))
	p.packed[d.Digest] = made
	p.document(made, b)
	return nil
}

// index adds an index whose manifests were added.
func (p *packer) index(ctx context.Context, d ocispecs.Descriptor) error {
	b, err := content.ReadBlob(ctx, p.s.images.Content(), d)
	if err != nil {
		return err
	}
	var index ocispecs.Index
	if err := json.Unmarshal(b, &index); err != nil {
		return fmt.Errorf("read %s: %w", d.Digest, err)
	}
	changed := false
	for i, m := range index.Manifests {
		if other, ok := p.packed[m.Digest]; ok {
			index.Manifests[i].Digest, index.Manifests[i].Size, changed = other.Digest, other.Size, true
		}
	}
	if !changed {
		p.document(d, nil)
		return nil
	}
	return p.rewrite(ctx, d, "manifests", index.Manifests)
}

// attestation adds a manifest that is no image.
func (p *packer) attestation(ctx context.Context, d ocispecs.Descriptor) error {
	b, err := content.ReadBlob(ctx, p.s.images.Content(), d)
	if err != nil {
		return fmt.Errorf("attestation of the image: %w", err)
	}
	var m ocispecs.Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return fmt.Errorf("read %s: %w", d.Digest, err)
	}
	for _, l := range m.Layers {
		p.layer(l)
	}
	p.document(m.Config, nil)
	p.document(d, nil)
	return nil
}

// documents gives those that were made here and those of the content store.
type documents struct {
	content.Provider
	made map[digest.Digest][]byte
}

func (p documents) ReaderAt(ctx context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	if b, ok := p.made[d.Digest]; ok {
		return memory{bytes.NewReader(b)}, nil
	}
	return p.Provider.ReaderAt(ctx, d)
}

type memory struct{ *bytes.Reader }

func (memory) Close() error { return nil }
