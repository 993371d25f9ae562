package manifest

import (
	"maps"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/exporter/attrs"
	"github.com/slipwaybuild/slipway/exporter/compression"
)

func TestAnnotations(t *testing.T) {
	t.Parallel()
	list := []attrs.Annotation{
		{Level: attrs.Manifest, Platform: "linux/amd64", Key: "a", Value: "amd64"},
		{Level: attrs.Manifest, Key: "a", Value: "all"},
		{Level: attrs.Manifest, Key: "b", Value: "first"},
		{Level: attrs.Manifest, Key: "b", Value: "second"},
		{Level: attrs.Index, Key: "c", Value: "index"},
	}
	if got := annotations(list, attrs.Manifest, "linux/amd64"); !maps.Equal(got, map[string]string{"a": "amd64", "b": "second"}) {
		t.Errorf("amd64: %v", got)
	}
	if got := annotations(list, attrs.Manifest, "linux/arm64"); !maps.Equal(got, map[string]string{"a": "all", "b": "second"}) {
		t.Errorf("arm64: %v", got)
	}
	if got := annotations(list, attrs.IndexDescriptor, ""); got != nil {
		t.Errorf("none: %v", got)
	}
}

func TestAnnotationsRefused(t *testing.T) {
	t.Parallel()
	in := exporter.Input{Platforms: []exporter.Platform{{ID: "x", Platform: ocispecs.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}}}}
	of := func(oci bool, level attrs.Level, platform string) Options {
		return Options{OCI: oci, Annotations: []attrs.Annotation{{Level: level, Platform: platform, Key: "k"}}}
	}
	for _, c := range []struct {
		name  string
		o     Options
		index bool
		ok    bool
	}{
		{"manifest", of(true, attrs.Manifest, ""), false, true},
		{"platform by its normal name", of(true, attrs.Manifest, "linux/arm64"), false, true},
		{"unknown platform", of(true, attrs.Manifest, "linux/amd64"), true, false},
		{"index without one", of(true, attrs.Index, ""), false, false},
		{"index descriptor without one", of(true, attrs.IndexDescriptor, ""), false, false},
		{"index", of(true, attrs.Index, ""), true, true},
		{"docker's manifests take them", of(false, attrs.Manifest, ""), true, true},
		{"docker's lists do not", of(false, attrs.ManifestDescriptor, ""), true, false},
	} {
		if err := checkAnnotations(in, c.o, c.index); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestLayerMediaType(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ from, oci, docker string }{
		{images.MediaTypeDockerSchema2LayerGzip, ocispecs.MediaTypeImageLayerGzip, images.MediaTypeDockerSchema2LayerGzip},
		{ocispecs.MediaTypeImageLayer, ocispecs.MediaTypeImageLayer, images.MediaTypeDockerSchema2Layer},
		{ocispecs.MediaTypeImageLayerZstd, ocispecs.MediaTypeImageLayerZstd, images.MediaTypeDockerSchema2LayerZstd},
		{images.MediaTypeDockerSchema2LayerForeignGzip, ocispecs.MediaTypeImageLayerGzip, images.MediaTypeDockerSchema2LayerGzip},
		{"application/x-other", "application/x-other", "application/x-other"},
		{"", "", ""},
	} {
		if got := layerMediaType(c.from, true); got != c.oci {
			t.Errorf("%s in OCI's terms: %s", c.from, got)
		}
		if got := layerMediaType(c.from, false); got != c.docker {
			t.Errorf("%s in Docker's terms: %s", c.from, got)
		}
	}
}

func TestParseOptions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a  map[string]string
		ok bool
	}{
		{nil, true},
		{map[string]string{"compression": "zstd"}, true},
		{map[string]string{"compression": "zstd", "oci-mediatypes": "false"}, true},
		{map[string]string{"compression": "lzma"}, false},
		{map[string]string{"compression": "estargz"}, true},
		{map[string]string{"compression": "estargz", "oci-mediatypes": "false"}, false},
		{map[string]string{"oci-mediatypes": "false", "oci-artifact": "true"}, false},
		{map[string]string{"attest-store": "referrers"}, true},
		{map[string]string{"attest-store": "nowhere"}, false},
		{map[string]string{"attestation-inline": "perhaps"}, false},
		{map[string]string{"rewrite-timestamp": "perhaps"}, false},
		{map[string]string{"compression": "gzip", "compression-level": "9"}, true},
		{map[string]string{"compression": "gzip", "compression-level": "10"}, false},
		{map[string]string{"compression": "zstd", "compression-level": "22"}, true},
		{map[string]string{"compression-level": "x"}, false},
		{map[string]string{"compression-level": "-1"}, false},
		{map[string]string{"force-compression": "perhaps"}, false},
		{map[string]string{"source-date-epoch": "perhaps"}, false},
		{map[string]string{"annotation-x.y": "z"}, false},
		{map[string]string{"something": "else"}, true},
	} {
		if _, err := ParseOptions(c.a, compression.Gzip); (err == nil) != c.ok {
			t.Errorf("%v: %v", c.a, err)
		}
	}
}
