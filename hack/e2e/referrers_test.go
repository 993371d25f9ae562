package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	bkclient "github.com/moby/buildkit/client"
	"github.com/slipwaybuild/slipway/solver/source/registry/registrytest"
)

// debianRegistry starts Debian's docker-registry, which knows nothing of referrers.
func debianRegistry(t *testing.T) string {
	t.Helper()
	need(t, "docker-registry")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\n", dir, host)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("docker-registry", "serve", config)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	waitFor(t, "the registry", func() bool {
		resp, err := http.Get("http://" + host + "/v2/")
		if err == nil {
			_ = resp.Body.Close()
		}
		return err == nil
	})
	return host
}

func TestAttestationsAsReferrers(t *testing.T) {
	d := startDaemon(t)
	dir := write(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	args := map[string]string{"attest:provenance": "mode=min", "attest:sbom": ""}
	for kind, host := range map[string]string{
		"with lists":    registrytest.New(t, registrytest.Options{Referrers: true}).Host,
		"without lists": registrytest.New(t, registrytest.Options{}).Host,
		"Debian's":      debianRegistry(t),
	} {
		t.Run(kind, func(t *testing.T) {
			ref := host + "/app:1"
			answer := d.mustDockerfile(dir, args, pushTo(ref, "attest-store", "referrers"))
			img := pulled(t, ref)
			if answer["containerimage.digest"] != digestOf(t, img) || answer["containerimage.config.digest"] == "" {
				t.Errorf("it is no plain image: %v", answer)
			}
			subject, err := name.NewDigest(host+"/app@"+digestOf(t, img), name.Insecure)
			if err != nil {
				t.Fatal(err)
			}
			types := referrersOf(t, subject)
			if types[provenanceV1] != 1 || types[spdxDocument] != 1 || len(types) != 2 {
				t.Errorf("the image is referred to by %v", types)
			}
			// Another build's provenance of the same image comes on top; the same bill of materials does not.
			d.mustDockerfile(dir, map[string]string{"attest:provenance": "mode=min"}, pushTo(ref, "attest-store", "referrers"))
			if digestOf(t, pulled(t, ref)) != digestOf(t, img) {
				t.Error("the second build gives another image")
			}
			if types := referrersOf(t, subject); types[provenanceV1] != 2 || types[spdxDocument] != 1 {
				t.Errorf("after a second build the image is referred to by %v", types)
			}
		})
	}
}

// referrersOf counts what refers to an image by predicate type.
func referrersOf(t *testing.T, subject name.Digest) map[string]int {
	t.Helper()
	idx, err := remote.Referrers(subject)
	if err != nil {
		t.Fatal(err)
	}
	m, err := idx.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]int{}
	for _, d := range m.Manifests {
		manifest, list := pulledStatements(t, subject.Context().Digest(d.Digest.String()))
		if len(list) != 1 || manifest.ArtifactType != "application/vnd.in-toto+json" || manifest.Subject == nil || manifest.Subject.Digest.String() != subject.DigestStr() {
			t.Errorf("referrer %+v with the manifest %+v", d, manifest)
		}
		for _, s := range list {
			types[s.PredicateType]++
		}
	}
	return types
}

func TestReferrersInLayout(t *testing.T) {
	need(t, "skopeo")
	d := startDaemon(t)
	dir := write(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	archive := filepath.Join(t.TempDir(), "a.tar")
	args := map[string]string{"attest:provenance": "mode=min"}
	d.mustDockerfile(dir, args, bkclient.ExportEntry{
		Type: "oci", Attrs: map[string]string{"attest-store": "referrers", "name": "x:1"}, Output: fixedFile(t, archive),
	})
	p, err := layout.FromPath(unarchive(t, archive))
	if err != nil {
		t.Fatal(err)
	}
	idx, err := p.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	m, err := idx.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Manifests) != 2 || m.Manifests[1].ArtifactType == "" {
		t.Fatalf("the layout's index lists %+v", m.Manifests)
	}
	about, err := idx.Image(m.Manifests[1].Digest)
	if err != nil {
		t.Fatal(err)
	}
	var manifest *v1.Manifest
	if manifest, err = about.Manifest(); err != nil || manifest.Subject == nil || manifest.Subject.Digest != m.Manifests[0].Digest {
		t.Errorf("the referrer is %+v: %v", manifest, err)
	}
	if out := command(t, "skopeo", "inspect", "--raw", "oci-archive:"+archive+":1"); !strings.Contains(out, `"layers"`) {
		t.Errorf("skopeo finds %s", out)
	}
}
