package manifests

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/labels"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/remotecache"
)

// Form is how a cache is written down.
type Form struct {
	// ImageManifest writes an image manifest, otherwise an index.
	ImageManifest bool
	// OCI chooses OCI media types over Docker's.
	OCI bool
}

// ParseForm reads the attributes image-manifest and oci-mediatypes.
func ParseForm(attrs map[string]string) (f Form, err error) {
	if f.OCI, err = boolean(attrs, "oci-mediatypes", true); err != nil {
		return f, err
	}
	if f.ImageManifest, err = boolean(attrs, "image-manifest", f.OCI); err != nil {
		return f, err
	}
	if f.ImageManifest && !f.OCI {
		return f, errors.New("invalid configuration for remote cache, OCI mediatypes are required for image-manifest cache format")
	}
	return f, nil
}

func boolean(attrs map[string]string, key string, fallback bool) (bool, error) {
	v, ok := attrs[key]
	if !ok {
		return fallback, nil
	}
	b, err := strconv.ParseBool(v)
	if err != nil {
		return false, fmt.Errorf("failed to parse %s: %w", key, err)
	}
	return b, nil
}

// blob is a small piece of content.
type blob struct {
	desc ocispecs.Descriptor
	data []byte
}

func newBlob(mediaType string, data []byte) blob {
	return blob{ocispecs.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}, data}
}

// ReaderAt implements [content.Provider].
func (b blob) ReaderAt(context.Context, ocispecs.Descriptor) (content.ReaderAt, error) {
	return memory{bytes.NewReader(b.data)}, nil
}

type memory struct{ *bytes.Reader }

func (memory) Close() error { return nil }

// write makes the config and the manifest of a cache.
func (f Form) write(c *remotecache.Cache) (config, root blob, err error) {
	data, err := c.Marshal(false)
	if err != nil {
		return config, root, err
	}
	config = newBlob(remotecache.ConfigMediaType, data)
	list := make([]ocispecs.Descriptor, len(c.Layers))
	for i, l := range c.Layers {
		list[i] = f.descriptor(l)
	}
	list = append(list, c.Chunks()...)
	versioned := specs.Versioned{SchemaVersion: 2}
	var doc any
	mediaType := ocispecs.MediaTypeImageManifest
	if f.ImageManifest {
		doc = ocispecs.Manifest{Versioned: versioned, MediaType: mediaType, Config: config.desc, Layers: list}
	} else {
		if mediaType = ocispecs.MediaTypeImageIndex; !f.OCI {
			mediaType = images.MediaTypeDockerSchema2ManifestList
		}
		doc = ocispecs.Index{Versioned: versioned, MediaType: mediaType, Manifests: append(list, config.desc)}
	}
	if data, err = json.Marshal(doc); err != nil {
		return config, root, fmt.Errorf("write cache manifest: %w", err)
	}
	return config, newBlob(mediaType, data), nil
}

func (f Form) descriptor(l remotecache.Layer) ocispecs.Descriptor {
	d := ocispecs.Descriptor{
		MediaType: layerType(l.Descriptor.MediaType, f.OCI), Digest: l.Descriptor.Digest, Size: l.Descriptor.Size,
		Annotations: map[string]string{labels.LabelUncompressed: l.DiffID.String()},
	}
	if l.Description != "" {
		d.Annotations[description] = l.Description
	}
	if !l.CreatedAt.IsZero() {
		if t, err := l.CreatedAt.UTC().MarshalText(); err == nil {
			d.Annotations[createdAt] = string(t)
		}
	}
	return d
}

// layerType says the same of a layer in the terms that were asked for. Docker has no word for zstd: such a layer keeps OCI's.
func layerType(t string, oci bool) string {
	for _, same := range [][2]string{
		{ocispecs.MediaTypeImageLayer, images.MediaTypeDockerSchema2Layer},
		{ocispecs.MediaTypeImageLayerGzip, images.MediaTypeDockerSchema2LayerGzip},
	} {
		switch {
		case t != same[0] && t != same[1]:
		case oci:
			return same[0]
		default:
			return same[1]
		}
	}
	return t
}

// title of the line that shows the manifest being written.
func (f Form) title(d digest.Digest) string {
	if f.ImageManifest {
		return "writing cache image manifest " + d.String()
	}
	return "writing cache manifest " + d.String()
}
