package attestation

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	intoto "github.com/in-toto/in-toto-golang/in_toto"
	"github.com/moby/buildkit/solver/result"
	digest "github.com/opencontainers/go-digest"
)

func TestSupplementTellsLayers(t *testing.T) {
	t.Parallel()
	layer := digest.FromString("layer")
	r := Reader{LayerOf: func(_ context.Context, path string) (digest.Digest, bool, error) { return layer, path == "foo", nil }}
	main := Attestation{Type: intoto.PredicateSPDX, Path: "/out/sbom.spdx.json", Metadata: map[string][]byte{result.AttestationSBOMCore: []byte("sbom")}}
	doc := `{"spdxVersion":"SPDX-2.2","kept":{"b":1.50},"files":[{"fileName":"/foo","x":1},{"fileName":"bar"},{"fileName":"./foo","comment":"mine"}]}`
	got, err := r.supplement(t.Context(), main, json.RawMessage(doc))
	want := `{"creationInfo":{"creators":["Tool: slipway"]},"files":[{"comment":"layerID: ` + layer.String() + `","fileName":"/foo","x":1},{"fileName":"bar"},` +
		`{"comment":"mine","fileName":"./foo"}],"kept":{"b":1.50},"spdxVersion":"SPDX-2.2"}`
	if err != nil || string(got) != want {
		t.Errorf("got  %s\nwant %s: %v", got, want, err)
	}
	other := main
	other.Path = "/out/sbom-context.spdx.json"
	for a, b := range map[*Attestation]string{&other: doc, &main: strings.Replace(doc, "SPDX-", "SPDY-", 1)} {
		if got, err := r.supplement(t.Context(), *a, json.RawMessage(b)); err != nil || string(got) != b {
			t.Errorf("%s of %s became %s: %v", b, a.Path, got, err)
		}
	}
}

func FuzzSupplement(f *testing.F) {
	f.Add([]byte(`{"spdxVersion":"SPDX-2.2","creationInfo":{"creators":["x"]},"files":[{"fileName":"/foo"},null]}`))
	f.Add([]byte(`{"spdxVersion":"SPDX-2.2","creationInfo":null,"files":[{"fileName":7}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if !json.Valid(b) {
			return
		}
		r := Reader{LayerOf: func(context.Context, string) (digest.Digest, bool, error) { return "sha256:0", true, nil }}
		a := Attestation{Type: intoto.PredicateSPDX, Path: "sbom.json", Metadata: map[string][]byte{result.AttestationSBOMCore: []byte("sbom")}}
		if got, err := r.supplement(t.Context(), a, b); err != nil || !json.Valid(got) {
			t.Errorf("%s became %s: %v", b, got, err)
		}
	})
}
