package manifest

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// MaxSize bounds an index, a manifest and a config, in bytes.
	MaxSize = 8 << 20
	// maxLayers bounds the layers of an image. The kernel can stack far fewer.
	maxLayers = 1000
	// maxEntries bounds the manifests of an index.
	maxEntries = 10000
)

// ErrNotImage is returned for content that is no image: something else that registries store, or rubbish.
var ErrNotImage = errors.New("not a container image")

// ErrSchema1 is returned for images in Docker's first format.
var ErrSchema1 = errors.New("the image is in Docker's schema 1 format, which is not supported; push it again with a current tool")

// document has the fields by which the kinds of document are told apart, and those of all kinds.
type document struct {
	SchemaVersion int                   `json:"schemaVersion"`
	MediaType     string                `json:"mediaType"`
	Config        *ocispecs.Descriptor  `json:"config"`
	Layers        []ocispecs.Descriptor `json:"layers"`
	Manifests     []ocispecs.Descriptor `json:"manifests"`
	Annotations   map[string]string     `json:"annotations"`
	FSLayers      json.RawMessage       `json:"fsLayers"`
}

// parse reads an index (manifests is set) or a manifest. mediaType is what the one who named the content says it is; "" is unknown.
// A document that claims to be both is refused, as different readers would see different images.
func parse(b []byte, mediaType string) (*document, error) {
	if len(b) > MaxSize {
		return nil, fmt.Errorf("manifest has %d bytes, more than the %d allowed", len(b), MaxSize)
	}
	if isSchema1(mediaType) {
		return nil, ErrSchema1
	}
	var d document
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, fmt.Errorf("%w: manifest: %w", ErrNotImage, err)
	}
	if d.SchemaVersion == 1 || d.FSLayers != nil || isSchema1(d.MediaType) {
		return nil, ErrSchema1
	}
	if d.MediaType == "" {
		d.MediaType = mediaType
	}
	index, manifest := d.Manifests != nil, d.Config != nil || d.Layers != nil
	switch {
	case index && manifest:
		return nil, fmt.Errorf("%w: manifest is an index and an image at once", ErrNotImage)
	case images.IsIndexType(d.MediaType) && manifest, images.IsManifestType(d.MediaType) && index:
		return nil, fmt.Errorf("%w: manifest is not the %s that it claims to be", ErrNotImage, d.MediaType)
	case index || images.IsIndexType(d.MediaType):
		return &d, d.checkIndex()
	case manifest:
		return &d, d.checkManifest()
	}
	return nil, fmt.Errorf("%w: %s has neither layers nor manifests", ErrNotImage, kind(d.MediaType))
}

func (d *document) isIndex() bool { return d.Config == nil && d.Layers == nil }

func (d *document) checkIndex() error {
	if len(d.Manifests) > maxEntries {
		return fmt.Errorf("%w: index of %d manifests", ErrNotImage, len(d.Manifests))
	}
	for i, m := range d.Manifests {
		if err := checkDescriptor(m); err != nil {
			return fmt.Errorf("%w: manifest %d of the index: %w", ErrNotImage, i+1, err)
		}
	}
	return nil
}

func (d *document) checkManifest() error {
	if d.Config == nil {
		return fmt.Errorf("%w: manifest without config", ErrNotImage)
	}
	if err := checkDescriptor(*d.Config); err != nil {
		return fmt.Errorf("%w: config: %w", ErrNotImage, err)
	}
	if len(d.Layers) > maxLayers {
		return fmt.Errorf("%w: %d layers, more than the %d allowed", ErrNotImage, len(d.Layers), maxLayers)
	}
	for i, l := range d.Layers {
		if err := checkDescriptor(l); err != nil {
			return fmt.Errorf("%w: layer %d: %w", ErrNotImage, i+1, err)
		}
	}
	return nil
}

func checkDescriptor(d ocispecs.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("digest %.100q: %w", d.Digest, err)
	}
	if d.Size < 0 {
		return fmt.Errorf("size %d", d.Size)
	}
	return nil
}

// parseConfig reads a config and returns the layers that it and the manifest speak of.
func parseConfig(b []byte, m *document) (*ocispecs.Image, []Layer, error) {
	if len(b) > MaxSize {
		return nil, nil, fmt.Errorf("config has %d bytes, more than the %d allowed", len(b), MaxSize)
	}
	var c ocispecs.Image
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, nil, fmt.Errorf("%w: config (%.100q): %w", ErrNotImage, m.Config.MediaType, err)
	}
	ids := c.RootFS.DiffIDs
	if len(ids) != len(m.Layers) {
		return nil, nil, fmt.Errorf("%w: the manifest lists %d layers, the config (%.100q) %d", ErrNotImage, len(m.Layers), m.Config.MediaType, len(ids))
	}
	made := history(&c)
	out := make([]Layer, len(ids))
	for i, id := range ids {
		if err := id.Validate(); err != nil {
			return nil, nil, fmt.Errorf("%w: diffID %.100q of layer %d: %w", ErrNotImage, id, i+1, err)
		}
		if !isLayer(m.Layers[i].MediaType) {
			return nil, nil, fmt.Errorf("%w: layer %d is %s", ErrNotImage, i+1, kind(m.Layers[i].MediaType))
		}
		out[i] = Layer{Descriptor: m.Layers[i], DiffID: id}
		if len(made) == len(ids) {
			out[i].CreatedBy = made[i]
		}
	}
	return &c, out, nil
}

// history returns by what each layer was made, as far as the history accounts for layers at all.
func history(c *ocispecs.Image) []string {
	var out []string
	for _, h := range c.History {
		if !h.EmptyLayer {
			out = append(out, h.CreatedBy)
		}
	}
	return out
}

func isSchema1(mediaType string) bool {
	switch mediaType {
	case images.MediaTypeDockerSchema1Manifest, "application/vnd.docker.distribution.manifest.v1+json":
		return true
	}
	return false
}

// isLayer tells whether a layer is a tar, compressed in a way that the layer store reads or not at all. Which way it finds out
// from the bytes.
func isLayer(mediaType string) bool {
	switch mediaType {
	case images.MediaTypeDockerSchema2Layer, images.MediaTypeDockerSchema2LayerGzip, images.MediaTypeDockerSchema2LayerZstd,
		images.MediaTypeDockerSchema2LayerForeign, images.MediaTypeDockerSchema2LayerForeignGzip,
		ocispecs.MediaTypeImageLayer, ocispecs.MediaTypeImageLayerGzip, ocispecs.MediaTypeImageLayerZstd,
		"application/vnd.oci.image.layer.nondistributable.v1.tar",
		"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
		"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd":
		return true
	}
	return false
}

func kind(mediaType string) string {
	if mediaType == "" {
		return "content of no media type"
	}
	return fmt.Sprintf("content of type %.100q", mediaType)
}

// Layer is one layer of an image.
type Layer struct {
	Descriptor ocispecs.Descriptor // of the blob, compressed or not
	DiffID     digest.Digest
	CreatedBy  string
}
