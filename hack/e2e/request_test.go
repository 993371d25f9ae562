package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/session"
	sessionexporter "github.com/moby/buildkit/session/exporter"
	"github.com/moby/buildkit/session/exporter/exporterprovider"
	"github.com/moby/buildkit/session/filesync"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/grpcerrors"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"
)

func TestCompatibilityVersions(t *testing.T) {
	d := startDaemon(t)
	c := d.client(t)
	for version, ok := range map[int]bool{0: true, 10: true, 20: true, 30: true, 11: false, 40: false, -1: false} {
		_, err := trySolve(t, c, llb.Scratch().File(llb.Mkfile("/f", 0o600, nil)), client.SolveOpt{CompatibilityVersion: version})
		var feature *errdefs.UnsupportedCompatibilityFeatureError
		switch {
		case ok && err != nil:
			t.Errorf("version %d: %v", version, err)
		case !ok && (!errors.As(err, &feature) || feature.Version != int64(version) || grpcerrors.Code(err) != codes.InvalidArgument):
			t.Errorf("version %d: %v", version, err)
		}
	}
	if _, err := trySolve(t, c, llb.Scratch(), client.SolveOpt{ProxyNetwork: true}); grpcerrors.Code(err) != codes.InvalidArgument {
		t.Errorf("a proxied network: %v", err)
	}
}

// Older versions had other defaults in what images are made of.
func TestCompatibilityVersionsOfImages(t *testing.T) {
	d := startDaemon(t)
	c := d.client(t)
	def, err := llb.Scratch().File(llb.Mkfile("/f", 0o600, nil)).Marshal(t.Context(), llb.LinuxAmd64)
	if err != nil {
		t.Fatal(err)
	}
	solve := func(version int, provenance string, attrs map[string]string) (string, error) {
		attrs["name"] = "example.com/compat:1"
		front := map[string]string{}
		if provenance != "" {
			front["attest:provenance"] = provenance
		}
		res, err := c.Solve(t.Context(), def, client.SolveOpt{
			CompatibilityVersion: version, FrontendAttrs: front, Exports: []client.ExportEntry{{Type: client.ExporterImage, Attrs: attrs}},
		}, nil)
		if err != nil {
			return "", err
		}
		raw, err := base64.StdEncoding.DecodeString(res.ExporterResponse["containerimage.descriptor"])
		if err != nil {
			return "", err
		}
		var desc ocispecs.Descriptor
		err = json.Unmarshal(raw, &desc)
		return desc.MediaType, err
	}
	const docker, oci, index = "application/vnd.docker.distribution.manifest.v2+json", ocispecs.MediaTypeImageManifest, ocispecs.MediaTypeImageIndex
	for _, c := range []struct {
		version    int
		provenance string
		attrs      map[string]string
		want       string
	}{
		{0, "", map[string]string{}, oci},
		{30, "", map[string]string{}, oci},
		{20, "", map[string]string{}, docker},
		{10, "", map[string]string{}, docker},
		{10, "", map[string]string{"oci-mediatypes": "true"}, oci},
		{30, "", map[string]string{"oci-mediatypes": "false"}, docker},
		{10, "mode=max", map[string]string{}, index},
		{20, "", map[string]string{"oci-mediatypes": "true", "compression": "zstd"}, oci},
	} {
		if got, err := solve(c.version, c.provenance, c.attrs); err != nil || got != c.want {
			t.Errorf("version %d with %q and %v: %q, %v, want %q", c.version, c.provenance, c.attrs, got, err, c.want)
		}
	}
	var feature *errdefs.UnsupportedCompatibilityFeatureError
	_, err = solve(10, "", map[string]string{"oci-mediatypes": "true", "compression": "zstd"})
	if !errors.As(err, &feature) || feature.Version != 10 || feature.Feature != "image exporter compression=zstd" || grpcerrors.Code(err) != codes.InvalidArgument {
		t.Errorf("zstd before its time: %v", err)
	}
	if _, err := solve(20, "", map[string]string{"compression": "estargz"}); err == nil || !strings.Contains(err.Error(), "oci-mediatypes=false") {
		t.Errorf("eStargz in Docker's types: %v", err)
	}
}

// A client may choose where the result goes after it has seen it.
func TestExportersOfTheClientsSession(t *testing.T) {
	d := startDaemon(t)
	c := d.client(t)
	out := t.TempDir()
	var mu sync.Mutex
	var refs []string
	var told map[string]string
	asked := exporterprovider.New(func(_ context.Context, _ map[string][]byte, ids []string) ([]*sessionexporter.ExporterRequest, error) {
		mu.Lock()
		defer mu.Unlock()
		refs = ids
		return []*sessionexporter.ExporterRequest{{Type: client.ExporterLocal}, {Type: client.ExporterImage, Attrs: map[string]string{"name": "example.com/later:1"}}}, nil
	}, exporterprovider.WithFinalizeCallback(func(_ context.Context, answer map[string]string) error {
		mu.Lock()
		defer mu.Unlock()
		told = answer
		return nil
	}))
	def, err := llb.Scratch().File(llb.Mkfile("/f", 0o600, []byte("x"))).Marshal(t.Context(), llb.LinuxAmd64)
	if err != nil {
		t.Fatal(err)
	}
	opt := client.SolveOpt{
		EnableSessionExporter: true,
		Session:               []session.Attachable{asked, filesync.NewFSSyncTarget(filesync.WithFSSyncDir(0, out))},
	}
	res, err := c.Solve(t.Context(), def, opt, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(refs) != 1 || refs[0] == "" {
		t.Errorf("the client was told of %q", refs)
	}
	if got := read(t, out, "f"); got != "x" {
		t.Errorf("got %q", got)
	}
	if told["image.name"] != "example.com/later:1" || res.ExporterResponse["image.name"] != told["image.name"] {
		t.Errorf("told %v and answered %v", told, res.ExporterResponse)
	}
	// A client without the service gets what it asked for.
	if _, err := c.Solve(t.Context(), def, client.SolveOpt{EnableSessionExporter: true}, nil); err != nil {
		t.Error(err)
	}
}
