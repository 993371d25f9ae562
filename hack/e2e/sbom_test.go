package e2e

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	bkresult "github.com/moby/buildkit/solver/result"
	"github.com/slipwaybuild/slipway/solver/source/registry/registrytest"
)

// spdx is what the tests read of a document.
type spdx struct {
	SPDXVersion string
	Packages    []struct {
		Name         string
		VersionInfo  string
		ExternalRefs []struct{ ReferenceLocator string }
	}
}

func (s spdx) locators() (list []string) {
	for _, p := range s.Packages {
		for _, r := range p.ExternalRefs {
			list = append(list, r.ReferenceLocator)
		}
	}
	return list
}

func sbomOf(t *testing.T, i attestedImage) (docs []spdx, raw []string) {
	t.Helper()
	for _, list := range i.statements {
		for _, s := range list {
			if s.PredicateType != spdxDocument {
				continue
			}
			var d spdx
			if err := json.Unmarshal(s.Predicate, &d); err != nil {
				t.Fatal(err)
			}
			docs, raw = append(docs, d), append(raw, string(s.Predicate))
		}
	}
	return docs, raw
}

func TestSBOMBuiltIn(t *testing.T) {
	need(t, "runc", "busybox")
	d := startDaemon(t)
	r := registrytest.New(t, registrytest.Options{})
	pushImage(t, r.Host+"/base:1", imageOf(t, layerOf(t, busyboxTar(t)), layerOf(t, tarOf(t, tarDir("etc"), tarReg("etc/os-release", "ID=debian\nVERSION_ID=12\n"),
		tarDir("var"), tarDir("var/lib"), tarDir("var/lib/dpkg"), tarReg("var/lib/dpkg/status", "Package: tar\nStatus: install ok installed\nVersion: 1.34\nArchitecture: amd64\n")))))
	dir := write(t, map[string]string{
		"package.json": `{"name":"left-pad","version":"1.3.0"}`,
		"Dockerfile":   "FROM " + r.Host + "/base:1\nCOPY package.json /app/node_modules/left-pad/\nRUN rm -f /nothing\n",
	})
	args := map[string]string{"attest:sbom": "", "attest:provenance": "mode=min", "build-arg:SOURCE_DATE_EPOCH": "1700000000"}
	d.mustDockerfile(dir, args, pushTo(r.Host+"/app:1"))
	docs, raw := sbomOf(t, pulledIndex(t, r.Host+"/app:1"))
	if len(docs) != 1 {
		t.Fatalf("%d bills of materials", len(docs))
	}
	want := []string{"pkg:deb/debian/tar@1.34?arch=amd64&distro=debian-12", "pkg:npm/left-pad@1.3.0"}
	if got := docs[0].locators(); docs[0].SPDXVersion != "SPDX-2.3" || !slices.Equal(got, want) || !strings.Contains(raw[0], "2023-11-14T22:13:20Z") {
		t.Errorf("the document: %s", raw[0])
	}
	if _, err := d.dockerfile(dir, map[string]string{"attest:sbom": "generator=127.0.0.1:1/scanner:1"}, pushTo(r.Host+"/app:2")); err == nil ||
		!strings.Contains(err.Error(), "the SBOM generator 127.0.0.1:1/scanner:1 cannot be pulled") {
		t.Errorf("a scanner that is not there: %v", err)
	}
}

// scanner is a program that follows the protocol for scanners: it lists the names in what it was given.
const scanner = `#!/bin/sh
set -e
say() {
  printf '{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"https://spdx.dev/Document","subject":[],"predicate":{"SPDXVersion":"x","packages":[{"name":"%s"},{"name":"%s"}]}}' "$2" "$BUILDKIT_SCAN_FLAVOUR" > "$BUILDKIT_SCAN_DESTINATION/$1.spdx.json"
}
say "$(basename $BUILDKIT_SCAN_SOURCE)" "$(ls $BUILDKIT_SCAN_SOURCE | tr '\n' ' ')"
test -z "$BUILDKIT_SCAN_SOURCE_EXTRAS" || for x in $BUILDKIT_SCAN_SOURCE_EXTRAS/*; do say "$(basename $x)" "$(ls $x | tr '\n' ' ')"; done
`

func TestSBOMByGenerator(t *testing.T) {
	need(t, "runc", "busybox")
	d := startDaemon(t)
	r := registrytest.New(t, registrytest.Options{})
	img, err := mutate.Config(imageOf(t, layerOf(t, busyboxTar(t)), layerOf(t, tarOf(t, tarReg("scan", scanner).with(0o755, 0, 0)))), v1.Config{
		Entrypoint: []string{"/scan"}, Env: []string{"PATH=/bin"}, WorkingDir: "/",
	})
	if err != nil {
		t.Fatal(err)
	}
	pushImage(t, r.Host+"/scanner:1", img)
	dir := write(t, map[string]string{"left": "", "Dockerfile": `ARG BUILDKIT_SBOM_SCAN_CONTEXT=true
FROM scratch AS first
ARG BUILDKIT_SBOM_SCAN_STAGE=true
COPY left /in-stage
FROM scratch
COPY --from=first /in-stage /result
`})
	names := func(args map[string]string, ref string) []string {
		t.Helper()
		d.mustDockerfile(dir, args, pushTo(r.Host+ref))
		docs, _ := sbomOf(t, pulledIndex(t, r.Host+ref))
		var list []string
		for _, doc := range docs {
			list = append(list, strings.TrimSpace(doc.Packages[0].Name)+"/"+doc.Packages[1].Name)
		}
		return list
	}
	generator := "generator=" + r.Host + "/scanner:1,FLAVOUR=sour"
	if got := names(map[string]string{"attest:sbom": generator}, "/frontend:1"); len(got) != 3 || got[0] != "result/sour" || !slices.Contains(got, "in-stage/sour") || !slices.Contains(got, "left/sour") {
		t.Errorf("scanned %q", got)
	}
	// Where no frontend scans, the engine does.
	ref, opt := r.Host+"/raw:1", map[string]string{"attest:sbom": generator}
	solveRaw(t, d, opt, pushTo(ref))
	docs, _ := sbomOf(t, pulledIndex(t, ref))
	if len(docs) != 1 || strings.TrimSpace(docs[0].Packages[0].Name) != "raw" {
		t.Errorf("scanned %+v", docs)
	}
}

// The main bill of materials is told which layers its files are in.
func TestSBOMTellsLayers(t *testing.T) {
	d := startDaemon(t)
	r := registrytest.New(t, registrytest.Options{})
	doc := `{"spdxVersion":"SPDX-2.2","SPDXID":"SPDXRef-DOCUMENT","files":[{"fileName":"/first"},{"fileName":"/d/second"},{"fileName":"/none"},{"fileName":"/gone"}]}`
	_, err := d.driver().Build(t.Context(), bkclient.SolveOpt{Exports: []bkclient.ExportEntry{pushTo(r.Host + "/x:1")}, FrontendAttrs: map[string]string{"attest:sbom": ""}}, "test",
		func(ctx context.Context, c gwclient.Client) (*gwclient.Result, error) {
			first := llb.Scratch().File(llb.Mkfile("/first", 0o644, []byte("1")).Mkfile("/gone", 0o644, []byte("g")))
			ref, err := refOf(ctx, c, first.File(llb.Mkdir("/d", 0o755).Mkfile("/d/second", 0o644, []byte("2")).Rm("/gone")))
			if err != nil {
				return nil, err
			}
			about, err := refOf(ctx, c, llb.Scratch().File(llb.Mkfile("/result.spdx", 0o600, []byte(doc))))
			if err != nil {
				return nil, err
			}
			res := gwclient.NewResult()
			res.SetRef(ref)
			res.AddAttestation("linux/amd64", gwclient.Attestation{
				Kind: gwpb.AttestationKind_InToto, Ref: about, Path: "/result.spdx", InToto: bkresult.InTotoAttestation{PredicateType: spdxDocument},
				Metadata: map[string][]byte{bkresult.AttestationSBOMCore: []byte("result")},
			})
			return res, nil
		}, nil)
	if err != nil {
		t.Fatal(err)
	}
	i := pulledIndex(t, r.Host+"/x:1")
	m, err := pulled(t, r.Host+"/x@"+i.images["linux/amd64"].Digest.String()).Manifest()
	if err != nil {
		t.Fatal(err)
	}
	_, raw := sbomOf(t, i)
	if len(raw) != 1 || len(m.Layers) != 2 {
		t.Fatalf("%d bills of materials, %d layers", len(raw), len(m.Layers))
	}
	for _, want := range []string{
		`{"comment":"layerID: ` + m.Layers[0].Digest.String() + `","fileName":"/first"}`, `{"comment":"layerID: ` + m.Layers[1].Digest.String() + `","fileName":"/d/second"}`,
		`{"fileName":"/none"}`, `{"comment":"layerID: ` + m.Layers[0].Digest.String() + `","fileName":"/gone"}`,
	} {
		if !strings.Contains(raw[0], want) {
			t.Errorf("%s is not in %s", want, raw[0])
		}
	}
}
