package e2e

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	bkresult "github.com/moby/buildkit/solver/result"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/source/registry/registrytest"
)

const (
	provenanceV1  = "https://slsa.dev/provenance/v1"
	provenanceV02 = "https://slsa.dev/provenance/v0.2"
	spdxDocument  = "https://spdx.dev/Document"
)

// statement is an in-toto statement as anybody reads it.
type statement struct {
	Type          string `json:"_type"`
	PredicateType string `json:"predicateType"`
	Subject       []struct {
		Name   string            `json:"name"`
		Digest map[string]string `json:"digest"`
	} `json:"subject"`
	Predicate json.RawMessage `json:"predicate"`
}

// dockerfile solves a Dockerfile with BuildKit's client.
func (d *daemon) dockerfile(dir string, attrs map[string]string, export bkclient.ExportEntry, attached ...session.Attachable) (map[string]string, error) {
	d.t.Helper()
	opt := bkclient.SolveOpt{
		Frontend: "dockerfile.v0", FrontendAttrs: attrs, Exports: []bkclient.ExportEntry{export}, Session: attached,
		LocalMounts: localDirs(d.t, dir, "context", "dockerfile"),
	}
	res, err := d.driver().Solve(d.t.Context(), nil, opt, nil)
	if err != nil {
		return nil, err
	}
	return res.ExporterResponse, nil
}

func (d *daemon) mustDockerfile(dir string, attrs map[string]string, export bkclient.ExportEntry, attached ...session.Attachable) map[string]string {
	d.t.Helper()
	answer, err := d.dockerfile(dir, attrs, export, attached...)
	if err != nil {
		d.t.Fatalf("build with %v: %v\nthe daemon's log:\n%s", attrs, err, d.logText())
	}
	return answer
}

func pushTo(ref string, more ...string) bkclient.ExportEntry {
	attrs := map[string]string{"name": ref, "push": "true"}
	for i := 0; i < len(more); i += 2 {
		attrs[more[i]] = more[i+1]
	}
	return bkclient.ExportEntry{Type: bkclient.ExporterImage, Attrs: attrs}
}

// attestedImage is an index that was pushed, taken apart: images by platform, and statements by the digest of what they are about.
type attestedImage struct {
	index      v1.IndexManifest
	images     map[string]v1.Descriptor
	manifests  []v1.Manifest
	statements map[string][]statement
}

func pulledIndex(t *testing.T, ref string) attestedImage {
	t.Helper()
	r, err := name.ParseReference(ref, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	idx, err := remote.Index(r)
	if err != nil {
		t.Fatal(err)
	}
	m, err := idx.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	out := attestedImage{index: *m, images: map[string]v1.Descriptor{}, statements: map[string][]statement{}}
	for _, d := range m.Manifests {
		if d.Platform.OS != "unknown" {
			out.images[d.Platform.String()] = d
			continue
		}
		if d.Annotations["vnd.docker.reference.type"] != "attestation-manifest" {
			t.Errorf("annotations of an attestation: %v", d.Annotations)
		}
		about := d.Annotations["vnd.docker.reference.digest"]
		manifest, list := pulledStatements(t, r.Context().Digest(d.Digest.String()))
		out.manifests = append(out.manifests, manifest)
		out.statements[about] = append(out.statements[about], list...)
	}
	return out
}

// pulledStatements reads the statements of one manifest.
func pulledStatements(t *testing.T, ref name.Digest) (v1.Manifest, []statement) {
	t.Helper()
	d, err := remote.Get(ref)
	if err != nil {
		t.Fatal(err)
	}
	var m v1.Manifest
	if err := json.Unmarshal(d.Manifest, &m); err != nil {
		t.Fatal(err)
	}
	var list []statement
	for _, l := range m.Layers {
		blob, err := remote.Layer(ref.Context().Digest(l.Digest.String()))
		if err != nil {
			t.Fatal(err)
		}
		rc, err := blob.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(rc)
		if err != nil {
			t.Fatal(err)
		}
		var s statement
		if err := json.Unmarshal(b, &s); err != nil {
			t.Fatalf("%v in %s", err, b)
		}
		if l.MediaType != "application/vnd.in-toto+json" || l.Annotations["in-toto.io/predicate-type"] != s.PredicateType || s.Type != "https://in-toto.io/Statement/v1" {
			t.Errorf("layer %+v of statement %s %s", l, s.Type, s.PredicateType)
		}
		list = append(list, s)
	}
	return m, list
}

// slsa is what the tests read of provenance v1.
type slsa struct {
	BuildDefinition struct {
		BuildType          string `json:"buildType"`
		ExternalParameters struct {
			ConfigSource struct {
				URI    string            `json:"uri"`
				Digest map[string]string `json:"digest"`
				Path   string            `json:"path"`
			} `json:"configSource"`
			Request struct {
				Frontend string              `json:"frontend"`
				Args     map[string]string   `json:"args"`
				Secrets  []map[string]any    `json:"secrets"`
				SSH      []map[string]any    `json:"ssh"`
				Locals   []map[string]string `json:"locals"`
			} `json:"request"`
		} `json:"externalParameters"`
		InternalParameters struct {
			BuilderPlatform, TargetPlatform string
			BuildConfig                     struct {
				LLB           []map[string]any  `json:"llbDefinition"`
				DigestMapping map[string]string `json:"digestMapping"`
			} `json:"buildConfig"`
		} `json:"internalParameters"`
		Dependencies []struct {
			URI    string            `json:"uri"`
			Digest map[string]string `json:"digest"`
		} `json:"resolvedDependencies"`
	} `json:"buildDefinition"`
	RunDetails struct {
		Builder struct {
			ID string `json:"id"`
		} `json:"builder"`
		Metadata struct {
			InvocationID, StartedOn, FinishedOn string
			BuildKit                            struct {
				Source struct {
					Infos []struct {
						Filename string `json:"filename"`
						Data     []byte `json:"data"`
					} `json:"infos"`
					Locations map[string]any `json:"locations"`
				} `json:"source"`
				Layers map[string][][]v1.Descriptor `json:"layers"`
			} `json:"buildkit_metadata"`
			Hermetic     bool            `json:"buildkit_hermetic"`
			Completeness map[string]bool `json:"buildkit_completeness"`
			Reproducible bool            `json:"buildkit_reproducible"`
		} `json:"metadata"`
	} `json:"runDetails"`
}

// provenanceOf finds the one provenance of an image with one platform.
func provenanceOf(t *testing.T, i attestedImage) (p slsa, raw string) {
	t.Helper()
	if len(i.statements) != 1 {
		t.Fatalf("statements on %d images", len(i.statements))
	}
	for _, list := range i.statements {
		for _, s := range list {
			if s.PredicateType == provenanceV1 {
				if err := json.Unmarshal(s.Predicate, &p); err != nil {
					t.Fatal(err)
				}
				return p, string(s.Predicate)
			}
		}
	}
	t.Fatal("no provenance v1")
	return p, ""
}

// attestedContext is a Dockerfile that uses an image, a local context, a file from a server, a secret and a build argument.
func attestedContext(t *testing.T, registry, url string) string {
	t.Helper()
	return write(t, map[string]string{"file": "x", "Dockerfile": `FROM ` + registry + `/base:1
ARG GREETING=hi
ARG NOSY
ADD ` + url + ` /added
COPY file /file
RUN --mount=type=secret,id=token,env=TOKEN --mount=type=secret,id=other,required=true test -n "$TOKEN" && echo $GREETING > /greeting
`})
}

func TestProvenanceOfImage(t *testing.T) {
	need(t, "runc", "busybox")
	d := startDaemon(t)
	r := registrytest.New(t, registrytest.Options{})
	base := pushImage(t, r.Host+"/base:1", imageOf(t, layerOf(t, busyboxTar(t))))
	served := serveFiles(t, map[string][]byte{"/f": []byte("served")})
	dir := attestedContext(t, r.Host, strings.Replace(served.URL, "://", "://robot:hunter2@", 1)+"/f")
	secret := secretsprovider.FromMap(map[string][]byte{"token": []byte("s3cr3t-token"), "other": []byte("s3cr3t-other")})
	args := map[string]string{
		"build-arg:GREETING": "hello", "build-arg:NOSY": "https://user:pa55word@example.com/x", "label:a": "b",
		"attest:provenance": "mode=max,builder-id=https://ci.example.com/1,reproducible=true",
	}
	answer := d.mustDockerfile(dir, args, pushTo(r.Host+"/max:1"), secret)
	max := pulledIndex(t, r.Host+"/max:1")
	if len(max.images) != 1 || len(max.manifests) != 1 {
		t.Fatalf("the index has %d images and %d attestations", len(max.images), len(max.manifests))
	}
	own := max.images["linux/amd64"].Digest.String()
	if answer["containerimage.digest"] == own || answer["containerimage.config.digest"] != "" {
		t.Errorf("the answer is that of a single image: %v", answer)
	}
	p, raw := provenanceOf(t, max)
	for _, private := range []string{"s3cr3t", "hunter2", "pa55word"} {
		if strings.Contains(raw, private) {
			t.Errorf("provenance tells %s:\n%s", private, raw)
		}
		for _, info := range p.RunDetails.Metadata.BuildKit.Source.Infos {
			if strings.Contains(string(info.Data), private) {
				t.Errorf("the source %s in provenance tells %s", info.Filename, private)
			}
		}
	}
	checkMax(t, p, base, served.URL+"/f")
	subject := max.statements[own][0].Subject
	if len(subject) != 1 || !strings.HasPrefix(subject[0].Name, "pkg:docker/") || !strings.Contains(subject[0].Name, "/max@1?platform=linux%2Famd64") || "sha256:"+subject[0].Digest["sha256"] != own {
		t.Errorf("the subject: %+v", subject)
	}
	if m := max.manifests[0]; m.Subject == nil || m.Subject.Digest.String() != own {
		t.Errorf("the manifest's subject is %v", m.Subject)
	}

	args["attest:provenance"] = "mode=min"
	d.mustDockerfile(dir, args, pushTo(r.Host+"/min:1"), secret)
	p, raw = provenanceOf(t, pulledIndex(t, r.Host+"/min:1"))
	request := p.BuildDefinition.ExternalParameters.Request
	if len(request.Args) != 0 || request.Secrets != nil || strings.Contains(raw, "llbDefinition") || strings.Contains(raw, "hello") ||
		p.RunDetails.Metadata.Completeness["request"] {
		t.Errorf("min tells too much:\n%s", raw)
	}
	if len(p.BuildDefinition.Dependencies) != 2 {
		t.Errorf("min tells the dependencies %v", p.BuildDefinition.Dependencies)
	}

	d.mustDockerfile(dir, map[string]string{"build-arg:BUILDKIT_ATTEST_PROVENANCE": "version=v0.2"}, pushTo(r.Host+"/old:1", "oci-artifact", "false"), secret)
	old := pulledIndex(t, r.Host+"/old:1")
	for _, list := range old.statements {
		var p struct {
			Materials []any
			BuildType string
			Metadata  struct{ Completeness map[string]bool }
		}
		if err := json.Unmarshal(list[0].Predicate, &p); err != nil || list[0].PredicateType != provenanceV02 || len(p.Materials) != 2 || p.BuildType != "https://mobyproject.org/buildkit@v1" || p.Metadata.Completeness["materials"] {
			t.Errorf("provenance v0.2 (%v): %s", err, list[0].Predicate)
		}
	}
	if m := old.manifests[0]; m.Subject != nil || m.Config.MediaType != "application/vnd.oci.image.config.v1+json" {
		t.Errorf("without oci-artifact the manifest is %+v", m)
	}
	d.mustDockerfile(dir, map[string]string{}, pushTo(r.Host+"/none:1"), secret)
	if _, err := remote.Image(tag(t, r.Host+"/none:1")); err != nil {
		t.Errorf("what was not asked for is no plain image: %v", err)
	}
}

// checkMax looks at everything that max tells of attestedContext.
func checkMax(t *testing.T, p slsa, base, url string) {
	t.Helper()
	request, md := p.BuildDefinition.ExternalParameters.Request, p.RunDetails.Metadata
	if request.Frontend != "dockerfile.v0" || request.Args["build-arg:GREETING"] != "hello" || request.Args["label:a"] != "b" ||
		request.Args["build-arg:NOSY"] != "https://xxxxx:xxxxx@example.com/x" {
		t.Errorf("the request: %+v", request)
	}
	if len(request.Secrets) != 2 || request.Secrets[0]["id"] != "other" || request.Secrets[1]["id"] != "token" {
		t.Errorf("secrets: %v", request.Secrets)
	}
	if len(request.Locals) != 2 || request.Locals[0]["name"] != "context" || request.Locals[1]["name"] != "dockerfile" {
		t.Errorf("locals: %v", request.Locals)
	}
	deps := map[string]string{}
	for _, dep := range p.BuildDefinition.Dependencies {
		deps[dep.URI] = dep.Digest["sha256"]
	}
	image := slices.IndexFunc(p.BuildDefinition.Dependencies, func(d struct {
		URI    string            `json:"uri"`
		Digest map[string]string `json:"digest"`
	}) bool {
		return strings.HasPrefix(d.URI, "pkg:docker/") && strings.Contains(d.URI, "/base@1?platform=linux%2Famd64")
	})
	if len(deps) != 2 || image < 0 || "sha256:"+p.BuildDefinition.Dependencies[image].Digest["sha256"] != base ||
		deps[strings.Replace(url, "://", "://xxxxx:xxxxx@", 1)] != digest.FromString("served").Encoded() {
		t.Errorf("dependencies: %v", deps)
	}
	if p.RunDetails.Builder.ID != "https://ci.example.com/1" || !md.Reproducible || md.Hermetic || !md.Completeness["request"] || md.Completeness["resolvedDependencies"] ||
		md.InvocationID == "" || md.StartedOn == "" || md.FinishedOn == "" {
		t.Errorf("run details: %+v", md)
	}
	config := p.BuildDefinition.InternalParameters.BuildConfig
	if len(config.LLB) < 5 || len(config.DigestMapping) != len(config.LLB) {
		t.Errorf("%d steps, %d digests", len(config.LLB), len(config.DigestMapping))
	}
	if len(md.BuildKit.Source.Infos) != 1 || !strings.Contains(string(md.BuildKit.Source.Infos[0].Data), "COPY file /file") || len(md.BuildKit.Source.Locations) == 0 {
		t.Errorf("source: %+v", md.BuildKit.Source)
	}
	// The base image has one layer, and each step adds one.
	var chains []int
	for _, c := range md.BuildKit.Layers {
		chains = append(chains, len(c[0]))
	}
	if slices.Sort(chains); !slices.Equal(chains, []int{1, 2, 3, 4}) {
		t.Errorf("layers: %v", md.BuildKit.Layers)
	}
}

func TestProvenanceRequests(t *testing.T) {
	d := startDaemon(t)
	r := registrytest.New(t, registrytest.Options{})
	dir := write(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	for attr, want := range map[string]string{
		"mode=some": "invalid mode", "version=v3": "invalid provenance SLSA version", "reproducible=perhaps": "failed to parse reproducible flag",
		"filename=../x": "invalid filename", "complete-materials=true": "local sources: context",
	} {
		if _, err := d.dockerfile(dir, map[string]string{"attest:provenance": attr}, pushTo(r.Host+"/x:1")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", attr, err, want)
		}
	}
	if _, err := d.dockerfile(dir, map[string]string{"attest:nonsense": ""}, pushTo(r.Host+"/x:1")); err == nil || !strings.Contains(err.Error(), `unknown attestation type "nonsense"`) {
		t.Errorf("an unknown attestation: %v", err)
	}
	if n := r.Count(http.MethodPut, "/manifests/"); n != 0 {
		t.Errorf("refused builds pushed %d manifests", n)
	}
	d.mustDockerfile(dir, map[string]string{"attest:provenance": "disabled=true"}, pushTo(r.Host+"/off:1"))
	if _, err := remote.Image(tag(t, r.Host+"/off:1")); err != nil {
		t.Errorf("disabled provenance: %v", err)
	}
	out := t.TempDir()
	d.mustDockerfile(dir, map[string]string{"attest:provenance": "mode=min,inline-only=true"}, localOutput(out)[0])
	if _, err := os.Stat(filepath.Join(out, "provenance.json")); err == nil {
		t.Error("what is for images only is in a directory")
	}
	// In an archive it would make an index of an image: it is left out there unless it is asked for.
	for _, inline := range []string{"false", "true"} {
		layout := t.TempDir()
		entry := bkclient.ExportEntry{Type: "oci", OutputDir: layout, Attrs: map[string]string{"tar": "false", "attestation-inline": inline}}
		answer := d.mustDockerfile(dir, map[string]string{"attest:provenance": "mode=min,inline-only=true"}, entry)
		if plain := answer["containerimage.config.digest"] != ""; plain != (inline == "false") {
			t.Errorf("attestation-inline=%s: %v", inline, answer)
		}
	}
}

func TestAttestationsAsFiles(t *testing.T) {
	d := startDaemon(t)
	dir := write(t, map[string]string{"Dockerfile": "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /d/$TARGETARCH\n", "amd64": "a", "arm64": "b"})
	both := map[string]string{"platform": "linux/amd64,linux/arm64", "attest:provenance": "mode=max,filename=prov.json", "attest:sbom": ""}
	for _, c := range []struct {
		attrs, args map[string]string
		want        []string
	}{
		{args: both, want: []string{
			"linux_amd64/d/amd64", "linux_amd64/prov.json", "linux_amd64/sbom.spdx.json",
			"linux_arm64/d/arm64", "linux_arm64/prov.json", "linux_arm64/sbom.spdx.json",
		}},
		{args: both, attrs: map[string]string{"platform-split": "false", "attestation-prefix": "my-"}, want: []string{
			"d/amd64", "d/arm64", "my-prov.linux_amd64.json", "my-prov.linux_arm64.json", "my-sbom.spdx.linux_amd64.json", "my-sbom.spdx.linux_arm64.json",
		}},
		{args: map[string]string{"attest:provenance": ""}, want: []string{"d/amd64", "provenance.json"}},
	} {
		out := t.TempDir()
		export := localOutput(out)[0]
		export.Attrs = c.attrs
		d.mustDockerfile(dir, c.args, export)
		var got []string
		for _, f := range list(t, out) {
			if st, err := os.Stat(filepath.Join(out, f)); err == nil && st.Mode().IsRegular() {
				got = append(got, f)
			}
		}
		if slices.Sort(got); !slices.Equal(got, c.want) {
			t.Errorf("%v: the output holds %v, want %v", c.attrs, got, c.want)
			continue
		}
		for _, f := range c.want {
			if strings.HasSuffix(f, ".json") {
				var s statement
				if err := json.Unmarshal([]byte(read(t, out, f)), &s); err != nil || len(s.Subject) != 1 || !strings.HasPrefix(s.Subject[0].Name, "d/a") {
					t.Errorf("%s: %v, subjects %v", f, err, s.Subject)
				}
			}
		}
	}
}

func TestAttestationsReturnedByClient(t *testing.T) {
	d := startDaemon(t)
	r := registrytest.New(t, registrytest.Options{})
	bundled := `{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"https://example.com/bundled","subject":[{"name":"x","digest":{"sha256":"` +
		digest.FromString("x").Encoded() + `"}}],"predicate":{"b":1}}`
	said := llb.Scratch().File(llb.Mkdir("/b", 0o755).Mkfile("/b/one.json", 0o644, []byte(bundled)).Mkfile("/say.json", 0o644, []byte(`{"a":1}`)).
		Mkdir("/bad", 0o755).Mkfile("/bad/one.json", 0o644, []byte(`{"predicateType":`)))
	build := func(change func(*gwclient.Result)) error {
		_, err := d.driver().Build(t.Context(), bkclient.SolveOpt{Exports: []bkclient.ExportEntry{pushTo(r.Host + "/said:1")}}, "test", func(ctx context.Context, c gwclient.Client) (*gwclient.Result, error) {
			ref, err := refOf(ctx, c, llb.Scratch().File(llb.Mkfile("/f", 0o644, []byte("f"))))
			if err != nil {
				return nil, err
			}
			about, err := refOf(ctx, c, said)
			if err != nil {
				return nil, err
			}
			res := gwclient.NewResult()
			res.SetRef(ref)
			for _, a := range []gwclient.Attestation{
				{Kind: gwpb.AttestationKind_InToto, Path: "say.json", InToto: bkresult.InTotoAttestation{
					PredicateType: "https://example.com/said", Subjects: []bkresult.InTotoSubject{{Kind: gwpb.InTotoSubjectKind_Self}},
				}},
				{Kind: gwpb.AttestationKind_Bundle, Path: "b"},
			} {
				a.Ref = about
				res.AddAttestation("linux/amd64", a)
			}
			if change != nil {
				change(res)
			}
			return res, nil
		}, nil)
		return err
	}
	if err := build(nil); err != nil {
		t.Fatal(err)
	}
	i := pulledIndex(t, r.Host+"/said:1")
	got := map[string]string{}
	for _, s := range i.statements[i.images["linux/amd64"].Digest.String()] {
		got[s.PredicateType] = string(s.Predicate) + " of " + s.Subject[0].Name
	}
	if !strings.HasPrefix(got["https://example.com/said"], `{"a":1} of pkg:docker/`) || got["https://example.com/bundled"] != `{"b":1} of x` || len(got) != 2 {
		t.Errorf("the image says %v", got)
	}
	for want, change := range map[string]func(*gwclient.Attestation){
		"frontend may not set provenance":        func(a *gwclient.Attestation) { a.InToto.PredicateType = provenanceV1 },
		"file does not exist":                    func(a *gwclient.Attestation) { a.Path = "nowhere.json" },
		"attestation does not have set path":     func(a *gwclient.Attestation) { a.Path = "" },
		"attestation does not have available co": func(a *gwclient.Attestation) { a.Ref = nil },
		"unknown kind":                           func(a *gwclient.Attestation) { a.Kind = 9 },
		"not a regular file":                     func(a *gwclient.Attestation) { a.Path = "b" },
		"decode in-toto statement":               func(a *gwclient.Attestation) { a.Kind, a.Path = gwpb.AttestationKind_Bundle, "/bad" },
	} {
		err := build(func(res *gwclient.Result) { change(&res.Attestations["linux/amd64"][0]) })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("an attestation that is wrong: %v, want %q", err, want)
		}
	}
}

// solveRaw solves a definition that no frontend wrote: one file, "raw".
func solveRaw(t *testing.T, d *daemon, attrs map[string]string, export bkclient.ExportEntry) {
	t.Helper()
	def, err := llb.Scratch().File(llb.Mkfile("/raw", 0o644, []byte("raw"))).Marshal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	opt := bkclient.SolveOpt{FrontendAttrs: attrs, Exports: []bkclient.ExportEntry{export}}
	if _, err := d.driver().Solve(t.Context(), def, opt, nil); err != nil {
		t.Fatalf("solve: %v\nthe daemon's log:\n%s", err, d.logText())
	}
}

// fixedFile makes a client's output of one file.
func fixedFile(t *testing.T, path string) func(map[string]string) (io.WriteCloser, error) {
	t.Helper()
	return func(map[string]string) (io.WriteCloser, error) { return os.Create(path) }
}

// A client that drives its build, as buildx does, sends its wishes beside the build and to the frontend.
func TestAttestationsOfDrivenBuild(t *testing.T) {
	need(t, "runc", "busybox")
	d := startDaemon(t)
	r := registrytest.New(t, registrytest.Options{})
	base := pushImage(t, r.Host+"/base:1", imageOf(t, layerOf(t, busyboxTar(t))))
	dir := write(t, map[string]string{"Dockerfile": "FROM " + r.Host + "/base:1\nARG A\nCOPY Dockerfile /\n"})
	attrs := map[string]string{"attest:provenance": "mode=max", "attest:sbom": "", "build-arg:A": "given"}
	opt := bkclient.SolveOpt{FrontendAttrs: attrs, Exports: []bkclient.ExportEntry{pushTo(r.Host + "/driven:1")}, LocalMounts: localDirs(t, dir, "context", "dockerfile")}
	_, err := d.driver().Build(t.Context(), opt, "test", func(ctx context.Context, c gwclient.Client) (*gwclient.Result, error) {
		return c.Solve(ctx, gwclient.SolveRequest{Frontend: "dockerfile.v0", FrontendOpt: c.BuildOpts().Opts})
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	i := pulledIndex(t, r.Host+"/driven:1")
	p, raw := provenanceOf(t, i)
	if docs, _ := sbomOf(t, i); len(docs) != 1 {
		t.Errorf("%d bills of materials", len(docs))
	}
	request := p.BuildDefinition.ExternalParameters.Request
	if request.Frontend != "dockerfile.v0" || request.Args["build-arg:A"] != "given" || len(p.BuildDefinition.Dependencies) != 1 ||
		"sha256:"+p.BuildDefinition.Dependencies[0].Digest["sha256"] != base {
		t.Errorf("provenance of a driven build: %s", raw)
	}
}

func TestAttestationsOfTwoPlatforms(t *testing.T) {
	d := startDaemon(t)
	r := registrytest.New(t, registrytest.Options{})
	idx := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: imageFor(t, "amd64", layerOf(t, tarOf(t, tarReg("x", "a"))))},
		mutate.IndexAddendum{Add: imageFor(t, "arm64", layerOf(t, tarOf(t, tarReg("x", "b"))))})
	if err := remote.WriteIndex(tag(t, r.Host+"/base:1"), idx); err != nil {
		t.Fatal(err)
	}
	dir := write(t, map[string]string{"Dockerfile": "FROM " + r.Host + "/base:1\nARG TARGETARCH\nCOPY Dockerfile /$TARGETARCH\n"})
	r2 := d.run("build", "--platform", "linux/amd64,linux/arm64", "--provenance", "mode=max", "--sbom", "true", "--annotation", "index:k=v", "-t", r.Host+"/app:1", "--push", dir)
	if r2.code != 0 {
		t.Fatalf("slipway build: %s", r2.all())
	}
	i := pulledIndex(t, r.Host+"/app:1")
	if len(i.images) != 2 || len(i.statements) != 2 || i.index.Annotations["k"] != "v" {
		t.Fatalf("%d images, statements on %d, annotations %v", len(i.images), len(i.statements), i.index.Annotations)
	}
	for platform, desc := range i.images {
		list := i.statements[desc.Digest.String()]
		if len(list) != 2 {
			t.Fatalf("%d statements on the image for %s", len(list), platform)
		}
		arch := strings.TrimPrefix(platform, "linux/")
		for _, s := range list {
			if s.PredicateType != provenanceV1 {
				continue
			}
			var p slsa
			if err := json.Unmarshal(s.Predicate, &p); err != nil {
				t.Fatal(err)
			}
			deps := p.BuildDefinition.Dependencies
			if len(deps) != 1 || !strings.HasSuffix(deps[0].URI, "?platform=linux%2F"+arch) || p.BuildDefinition.InternalParameters.TargetPlatform != platform {
				t.Errorf("provenance of the image for %s: %s", platform, s.Predicate)
			}
		}
	}
	// Other programs see two images.
	if out := command(t, "skopeo", "inspect", "--tls-verify=false", "--override-arch", "arm64", "docker://"+r.Host+"/app:1"); !strings.Contains(out, `"Architecture": "arm64"`) {
		t.Errorf("skopeo finds %s", out)
	}
}
