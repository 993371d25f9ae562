package manifest_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/exporter/attestation"
	"github.com/slipwaybuild/slipway/exporter/compression"
	"github.com/slipwaybuild/slipway/exporter/internal/exportertest"
	"github.com/slipwaybuild/slipway/exporter/manifest"
	"github.com/slipwaybuild/slipway/solver/layers/layerstest"
)

// attestedInput is an image of one file of which one thing is said.
func attestedInput(b *exportertest.Bench) exporter.Input {
	in := exportertest.Input(b.Layer("layer", layerstest.Text("f", "file")), `{"os":"linux","architecture":"amd64","created":"2001-02-03T04:05:06Z",`+
		`"history":[{"created":"2001-02-03T04:05:06Z","created_by":"COPY f /"}]}`, nil)
	in.Platforms[0].Attestations = []attestation.Attestation{{
		Kind: gwpb.AttestationKind_InToto, Path: "said.json", Type: "https://example.com/said",
		Content: func(_ context.Context, image []ocispecs.Descriptor) ([]byte, error) {
			return json.Marshal(map[string]int{"layers": len(image)})
		},
	}}
	return in
}

// The form is BuildKit's: its clients find attestations by it. Whoever changes the files in testdata must look at what those read.
func TestGoldenManifests(t *testing.T) {
	b := exportertest.New(t)
	for name, attrs := range map[string]map[string]string{
		"artifact": {}, "config": {"oci-artifact": "false"}, "referrers": {"attest-store": "referrers"},
	} {
		o, err := manifest.ParseOptions(attrs, compression.Uncompressed)
		b.OK(err)
		o.Attest.Inline, o.Names = true, []string{"docker.io/library/app:1"}
		ctx, done, err := b.Images.WithLease(t.Context())
		b.OK(err)
		img, err := (&manifest.Assembler{Layers: b.Layers, Content: b.Images.Content()}).Image(ctx, attestedInput(b), o, &exportertest.Progress{})
		b.OK(err)
		b.OK(done(context.WithoutCancel(ctx)))
		got := []byte{}
		for _, blob := range img.Blobs {
			if blob.Data != nil {
				got = append(append(append(got, blob.Desc.MediaType+" "+blob.Desc.Digest.String()+"\n"...), blob.Data...), '\n')
			}
		}
		file := filepath.Join("testdata", name+".golden")
		if os.Getenv("UPDATE_GOLDEN") != "" {
			b.OK(os.WriteFile(file, got, 0o644))
		}
		want, err := os.ReadFile(file)
		b.OK(err)
		if string(got) != string(want) {
			t.Errorf("%s: the image is\n%s\nand was\n%s", name, got, want)
		}
	}
}
