package history

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	controlapi "github.com/moby/buildkit/api/services/control"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// put stores v as JSON, or bytes as they are.
func put(t *testing.T, s content.Store, mediaType string, v any) ocispecs.Descriptor {
	t.Helper()
	b, ok := v.([]byte)
	if !ok {
		var err error
		if b, err = json.Marshal(v); err != nil {
			t.Fatal(err)
		}
	}
	d := ocispecs.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	if err := content.WriteBlob(t.Context(), s, d.Digest.String(), bytes.NewReader(b), d); err != nil {
		t.Fatal(err)
	}
	return d
}

// Of a result the manifests, configs and statements stay with the record, and its layers do not.
func TestResult(t *testing.T) {
	from, err := local.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	config := put(t, from, ocispecs.MediaTypeImageConfig, []byte(`{"a":1}`))
	layer := put(t, from, ocispecs.MediaTypeImageLayerGzip, []byte("a layer"))
	said := put(t, from, statement, []byte(`{"b":1}`))
	version := specs.Versioned{SchemaVersion: 2}
	m := put(t, from, ocispecs.MediaTypeImageManifest, ocispecs.Manifest{Versioned: version, MediaType: ocispecs.MediaTypeImageManifest, Config: config, Layers: []ocispecs.Descriptor{layer, said}})
	missing := ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageManifest, Digest: digest.FromString("?"), Size: 1}
	index := put(t, from, ocispecs.MediaTypeImageIndex, ocispecs.Index{Versioned: version, MediaType: ocispecs.MediaTypeImageIndex, Manifests: []ocispecs.Descriptor{m, missing}})

	s := open(t, Options{})
	b := begin(t, s, Start{Ref: "r"})
	if err := b.Result(t.Context(), 3, m, from); err != nil {
		t.Fatal(err)
	}
	if err := b.Result(t.Context(), 1, index, from); err != nil {
		t.Fatal(err)
	}
	if err := b.Result(t.Context(), 0, missing, from); err != nil {
		t.Fatal(err)
	}
	if err := b.End(t.Context(), nil, nil); err != nil {
		t.Fatal(err)
	}
	r := record(t, s, "r")
	if len(r.Result.Results) != 2 || r.Result.Results[1].Digest != index.Digest.String() || r.Result.ResultDeprecated.Digest != index.Digest.String() {
		t.Errorf("results: %v", r.Result)
	}
	for _, d := range []ocispecs.Descriptor{index, m, config, said} {
		readBlob(t, s, &controlapi.Descriptor{Digest: d.Digest.String(), Size: d.Size})
	}
	if n := countBlobs(t, s); n != 5 { // and the log
		t.Errorf("%d blobs", n)
	}
	if err := s.Delete("r"); err != nil {
		t.Fatal(err)
	}
	if n := countBlobs(t, s); n != 0 {
		t.Errorf("%d blobs of a deleted build", n)
	}
}
