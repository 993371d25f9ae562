package e2e

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/source/registry/registrytest"
)

// resolveSource asks what a source means, as clients do that drive their build.
func resolveSource(t *testing.T, c *client.Client, op *pb.SourceOp, opt sourceresolver.Opt) *sourceresolver.MetaResponse {
	t.Helper()
	var res *sourceresolver.MetaResponse
	_, err := c.Build(t.Context(), client.SolveOpt{}, "test", func(ctx context.Context, g gateway.Client) (_ *gateway.Result, err error) {
		res, err = g.ResolveSourceMetadata(ctx, op, opt)
		return gateway.NewResult(), err
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestBlobsAsFiles(t *testing.T) {
	d := startDaemon(t)
	c := d.client(t)
	r := registrytest.New(t, registrytest.Options{})
	l := static.NewLayer([]byte("a blob's bytes"), types.OCIUncompressedLayer)
	if err := remote.WriteLayer(tag(t, r.Host+"/blobs:x").Context(), l); err != nil {
		t.Fatal(err)
	}
	ref := r.Host + "/blobs@" + digestOf(t, l)
	out := solve(t, c, llb.ImageBlob(ref, llb.Filename("named"), llb.Chmod(0o640)), client.SolveOpt{})
	if fi, err := os.Stat(filepath.Join(out, "named")); read(t, out, "named") != "a blob's bytes" || err != nil || fi.Mode() != 0o640 {
		t.Errorf("from the registry: %v, %v", fi, err)
	}
	if out := solve(t, c, llb.ImageBlob(ref), client.SolveOpt{}); read(t, out, strings.TrimPrefix(digestOf(t, l), "sha256:")) != "a blob's bytes" {
		t.Error("without a name the file is not called by its digest")
	}

	// Manifests of this length are refused.
	long := static.NewLayer(bytes.Repeat([]byte("long"), 4<<20), types.OCIUncompressedLayer)
	if err := remote.WriteLayer(tag(t, r.Host+"/blobs:x").Context(), long); err != nil {
		t.Fatal(err)
	}
	out = solve(t, c, llb.ImageBlob(r.Host+"/blobs@"+digestOf(t, long), llb.Filename("long")), client.SolveOpt{})
	if fi, err := os.Stat(filepath.Join(out, "long")); err != nil || fi.Size() != 16<<20 {
		t.Errorf("a long blob: %v, %v", fi, err)
	}

	store, err := local.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	text := "in the client's store"
	desc := ocispecs.Descriptor{Digest: digest.FromString(text), Size: int64(len(text))}
	if err := content.WriteBlob(t.Context(), store, "x", strings.NewReader(text), desc); err != nil {
		t.Fatal(err)
	}
	layout := llb.OCILayoutBlob("example.com/any@"+desc.Digest.String(), llb.ImageBlobOCIStore("", "mine"), llb.Filename("f"))
	out = solve(t, c, layout, client.SolveOpt{OCIStores: map[string]content.Store{"mine": store}})
	if got := read(t, out, "f"); got != text {
		t.Errorf("from the client: %q", got)
	}

	missing := llb.ImageBlob(r.Host + "/blobs@" + digest.FromString("missing").String())
	if _, err := trySolve(t, c, missing, client.SolveOpt{}); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("a blob that is not there: %v", err)
	}
	r.Fault(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		_, _ = io.WriteString(w, "forged") // the client may have left
		return true
	})
	defer r.Fault(nil)
	forged := llb.ImageBlob(r.Host + "/blobs@" + digest.FromString("else").String())
	if _, err := trySolve(t, c, forged, client.SolveOpt{}); err == nil || !strings.Contains(err.Error(), "digest mismatch") {
		t.Errorf("other bytes than asked for: %v", err)
	}
}

func TestChecksumRequest(t *testing.T) {
	d := startDaemon(t)
	web := serveFiles(t, map[string][]byte{"/data": []byte("signed")})
	res := resolveSource(t, d.client(t), &pb.SourceOp{Identifier: web.URL + "/data"}, sourceresolver.Opt{
		HTTPOpt: &sourceresolver.ResolveHTTPOpt{ChecksumReq: &sourceresolver.ResolveHTTPChecksumRequest{
			Algo: sourceresolver.ResolveHTTPChecksumAlgoSHA512, Suffix: []byte(" and more"),
		}},
	})
	sum := sha512.Sum512([]byte("signed and more"))
	if got := res.HTTP.ChecksumResponse; got == nil || got.Digest != "sha512:"+hex.EncodeToString(sum[:]) || string(got.Suffix) != " and more" {
		t.Errorf("got %+v", got)
	}
	if res.HTTP.Digest != digest.FromString("signed") {
		t.Errorf("the file's digest is %s", res.HTTP.Digest)
	}
}

// attested puts an index into a registry with an image, attestations of it, and what signs them. It returns the digests of the
// image and the attestation manifest.
func attested(t *testing.T, ref string) (image, attestation string) {
	t.Helper()
	img := imageOf(t, layerOf(t, tarOf(t, tarReg("f", "attested"))))
	image = digestOf(t, img)
	att := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	var err error
	for kind, text := range map[string]string{"https://slsa.dev/provenance/v1": `{"it":"provenance"}`, "https://spdx.dev/Document": `{"it":"sbom"}`} {
		att, err = mutate.Append(att, mutate.Addendum{
			Layer:       static.NewLayer([]byte(text), "application/vnd.in-toto+json"),
			Annotations: map[string]string{"in-toto.io/predicate-type": kind},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	attestation = digestOf(t, att)
	idx := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex),
		mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}},
		mutate.IndexAddendum{Add: att, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"},
			Annotations: map[string]string{
				"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": image,
			},
		}})
	if err := remote.WriteIndex(tag(t, ref), idx); err != nil {
		t.Fatal(err)
	}
	return image, attestation
}

func TestResolveAttestations(t *testing.T) {
	d := startDaemon(t)
	c := d.client(t)
	r := registrytest.New(t, registrytest.Options{})
	ref := r.Host + "/attested:1"
	image, attestation := attested(t, ref)
	res := resolveSource(t, c, &pb.SourceOp{Identifier: "docker-image://" + ref}, sourceresolver.Opt{ImageOpt: &sourceresolver.ResolveImageOpt{
		Platform: &ocispecs.Platform{OS: "linux", Architecture: "amd64"},
		NoConfig: true, ResolveAttestations: []string{"https://slsa.dev/provenance/v1"},
	}})
	chain := res.Image.AttestationChain
	if chain == nil || chain.Root != res.Image.Digest || chain.ImageManifest.String() != image || chain.AttestationManifest.String() != attestation {
		t.Fatalf("the chain is %+v", chain)
	}
	if len(res.Image.Config) != 0 {
		t.Error("a config that nobody wanted")
	}
	var texts []string
	for d, b := range chain.Blobs {
		if digest.FromBytes(b.Data) != d || b.Descriptor.Digest != d || !json.Valid(b.Data) {
			t.Errorf("%s is not what it is called", d)
		}
		if strings.HasPrefix(string(b.Data), `{"it"`) {
			texts = append(texts, string(b.Data))
		}
	}
	if !slices.Equal(texts, []string{`{"it":"provenance"}`}) || len(chain.Blobs) != 3 {
		t.Errorf("got %d blobs with the attestations %q", len(chain.Blobs), texts)
	}

	pushImage(t, r.Host+"/plain:1", imageOf(t, layerOf(t, tarOf(t, tarReg("f", "plain")))))
	res = resolveSource(t, c, &pb.SourceOp{Identifier: "docker-image://" + r.Host + "/plain:1"}, sourceresolver.Opt{
		ImageOpt: &sourceresolver.ResolveImageOpt{AttestationChain: true},
	})
	if res.Image.AttestationChain != nil || len(res.Image.Config) == 0 {
		t.Errorf("an image without attestations: %+v", res.Image)
	}
}
