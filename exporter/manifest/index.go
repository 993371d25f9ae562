package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/exporter/attrs"
)

// addIndex puts an index over the images of all platforms.
func (i *Image) addIndex(o Options) error {
	idx := ocispecs.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageIndex,
		Annotations: annotations(o.Annotations, attrs.Index, ""),
	}
	if !o.OCI {
		idx.MediaType = images.MediaTypeDockerSchema2ManifestList
	}
	var children []digest.Digest
	for _, s := range i.Singles {
		d := s.Manifest
		platform := s.Platform
		d.Platform = &platform
		idx.Manifests = append(idx.Manifests, d)
		children = append(children, d.Digest)
	}
	for _, d := range i.Attestations {
		idx.Manifests = append(idx.Manifests, d)
		children = append(children, d.Digest)
	}
	data, err := json.MarshalIndent(idx, "", "  ")
	if err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	i.Desc = ocispecs.Descriptor{
		MediaType: idx.MediaType, Digest: digest.FromBytes(data), Size: int64(len(data)),
		Annotations: annotations(o.Annotations, attrs.IndexDescriptor, ""),
	}
	i.add(Blob{Desc: i.Desc, Data: data, Children: children})
	return nil
}

// annotations picks those of one level and platform; nil if there are none. Those of the one platform count more than those
// of all, later ones more than earlier ones.
func annotations(all []attrs.Annotation, level attrs.Level, platform string) map[string]string {
	var m map[string]string
	for _, of := range slices.Compact([]string{"", platform}) {
		for _, a := range all {
			if a.Level != level || a.Platform != of {
				continue
			}
			if m == nil {
				m = map[string]string{}
			}
			m[a.Key] = a.Value
		}
	}
	return m
}

// checkAnnotations refuses those that would get lost.
func checkAnnotations(in exporter.Input, o Options, index bool) error {
	known := map[string]bool{"": true}
	for _, p := range in.Platforms {
		known[platformKey(p.Platform)] = true
	}
	for _, a := range o.Annotations {
		ofIndex := a.Level == attrs.Index || a.Level == attrs.IndexDescriptor
		switch {
		case !known[a.Platform]:
			return fmt.Errorf("invalid annotation: no platform %s found in source", a.Platform)
		case !o.OCI && a.Level != attrs.Manifest:
			return errors.New(`cannot export annotations with "oci-mediatypes=false"`)
		case ofIndex && !index:
			return errors.New("index annotations not supported for single platform export")
		}
	}
	return nil
}

// platformKey is how annotations name a platform.
func platformKey(p ocispecs.Platform) string { return platforms.FormatAll(platforms.Normalize(p)) }
