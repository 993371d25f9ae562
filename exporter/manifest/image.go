package manifest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/layers"
)

// Blob is one piece of an image's content.
type Blob struct {
	Desc ocispecs.Descriptor
	// Data is the content of a config, manifest or index; nil for a layer.
	Data []byte
	// Remote is where a layer comes from whose bytes need not be here in this form; nil otherwise.
	Remote *layers.RemoteBlob
	// Elsewhere says that the layer is had from the URLs in its descriptor, and is not to be sent.
	Elsewhere bool
	// Open opens a layer's bytes as the descriptor says; nil where there is Data. What it opens ends with the context.
	Open func(context.Context) (io.ReadCloser, error)
	// Children are the digests that the content names; nil for layers and configs.
	Children []digest.Digest
}

// Single is the image of one platform.
type Single struct {
	Platform ocispecs.Platform
	Manifest ocispecs.Descriptor
	Config   ocispecs.Descriptor
	Layers   []ocispecs.Descriptor

	stack []int // where each layer is in the stack it is of
}

// Referrer is an artifact whose manifest names an image as its subject.
type Referrer struct {
	Subject digest.Digest
	// Desc is its manifest, as lists of referrers have it.
	Desc ocispecs.Descriptor
}

// Image is an image, of one platform or several. It is not changed after it was made.
type Image struct {
	// Desc is the manifest, or the index over several.
	Desc ocispecs.Descriptor
	// Singles are the images by platform, in the order asked for.
	Singles []Single
	// Attestations are the manifests that stand beside the images in the index.
	Attestations []ocispecs.Descriptor
	// Referrers are artifacts that speak of the images and that nothing in the image names.
	Referrers []Referrer
	// Blobs are all content, children before parents, each digest once.
	Blobs []Blob
	// Index tells whether Desc is an index.
	Index bool
	// Created is when the newest of the images was made, as their configs say; nil if they do not.
	Created *time.Time
}

// add puts a blob in unless it is there.
func (i *Image) add(b Blob) {
	for _, have := range i.Blobs {
		if have.Desc.Digest == b.Desc.Digest {
			return
		}
	}
	i.Blobs = append(i.Blobs, b)
}

// Answer is what clients are told about an image with these names.
func (i *Image) Answer(names []string) (map[string]string, error) {
	desc, err := json.Marshal(i.Desc)
	if err != nil {
		return nil, fmt.Errorf("write descriptor: %w", err)
	}
	answer := map[string]string{
		exptypes.ExporterImageDigestKey:     i.Desc.Digest.String(),
		exptypes.ExporterImageDescriptorKey: base64.StdEncoding.EncodeToString(desc),
	}
	if !i.Index {
		answer[exptypes.ExporterImageConfigDigestKey] = i.Singles[0].Config.Digest.String()
	}
	if len(names) > 0 {
		answer[exptypes.ExporterImageNameKey] = strings.Join(names, ",")
	}
	return answer, nil
}
