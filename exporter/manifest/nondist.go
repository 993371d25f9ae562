package manifest

import (
	"github.com/containerd/containerd/v2/core/images"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// foreign is a layer that came from a registry and must not be distributed, as the manifest has it: by its own type and with the URLs it
// can be had from. false for any other layer.
func foreign(d ocispecs.Descriptor, oci bool) (ocispecs.Descriptor, bool) {
	if !images.IsNonDistributable(d.MediaType) || len(d.URLs) == 0 {
		return d, false
	}
	out := ocispecs.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, URLs: d.URLs}
	for _, same := range [][2]string{
		{ocispecs.MediaTypeImageLayerNonDistributable, images.MediaTypeDockerSchema2LayerForeign},         //nolint:staticcheck // old images have them
		{ocispecs.MediaTypeImageLayerNonDistributableGzip, images.MediaTypeDockerSchema2LayerForeignGzip}, //nolint:staticcheck // as above
	} {
		if d.MediaType == same[0] || d.MediaType == same[1] {
			out.MediaType = same[1]
			if oci {
				out.MediaType = same[0]
			}
		}
	}
	return out, true
}
