// Package archive is the output that sends an image to the client: as one file, an OCI layout ("oci") or the same with what docker
// load reads ("docker"), or as content into a directory that is an OCI layout. Layers that came from elsewhere are as they came,
// others are gzipped, unless the client asks otherwise.
package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"time"

	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/exporter/attrs"
	"github.com/slipwaybuild/slipway/exporter/compression"
	"github.com/slipwaybuild/slipway/exporter/manifest"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/images"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// Types are the output's types in requests.
const (
	TypeOCI    = "oci"
	TypeDocker = "docker"
)

// New returns the factory for one of the types.
func New(store *layers.Store, imgs *images.Store, typ string) exporter.Factory {
	return func(id int, a map[string]string) (exporter.Exporter, error) {
		x := &archive{id: id, typ: typ, images: imgs, assembler: &manifest.Assembler{Layers: store, Content: imgs.Content()}}
		if err := x.parse(a); err != nil {
			return nil, err
		}
		return x, nil
	}
}

type archive struct {
	id        int
	typ       string
	asTar     bool
	names     attrs.Names
	manifest  manifest.Options
	images    *images.Store
	assembler *manifest.Assembler
}

func (x *archive) parse(a map[string]string) (err error) {
	if x.names, err = attrs.ParseNames(a); err != nil {
		return err
	}
	if x.asTar, err = attrs.Bool(a, "tar", true); err != nil {
		return err
	}
	// Much of what reads layouts takes layers for gzipped whatever their type says.
	x.manifest, err = manifest.ParseOptions(a, compression.Gzip)
	x.manifest.Bring = true
	return err
}

func (x *archive) Name() string { return "exporting to " + x.typ + " image format" }

var errList = errors.New("docker exporter does not currently support exporting manifest lists")

// Export sends the image: all digests and sizes are known before the first byte.
func (x *archive) Export(ctx context.Context, in exporter.Input, p progress.Writer) (_ map[string]string, err error) {
	if x.typ == TypeDocker && (in.MultiPlatform || len(in.Platforms) > 1) {
		return nil, errList
	}
	chosen, err := x.manifest.At(in, x.typ)
	if err != nil {
		return nil, err
	}
	names, err := x.names.Resolve(string(in.Metadata[exptypes.ExporterImageNameKey]))
	if err != nil {
		return nil, err
	}
	ctx, done, err := x.images.WithLease(ctx)
	if err != nil {
		return nil, fmt.Errorf("take lease for image: %w", err)
	}
	defer func() { err = errors.Join(err, done(context.WithoutCancel(ctx))) }()
	in, release, err := x.assembler.Rewrite(ctx, in, chosen, p)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, release()) }()
	img, err := x.assemble(ctx, in, chosen, names, p)
	if err != nil {
		return nil, err
	}
	answer, err := img.Answer(names)
	if err != nil {
		return nil, err
	}
	sent := exporter.Meter(p, progress.Status{ID: "sending tarball"})
	defer sent.Done()
	if !x.asTar {
		return answer, upload(ctx, in.Sessions, img, sent)
	}
	return answer, exporter.ToClient(ctx, in.Sessions, func(ctx context.Context, c session.Caller) error {
		return exporter.Stream(ctx, in, c, x.id, answer, func(w io.Writer) error {
			return x.write(ctx, io.MultiWriter(w, sent), img, names)
		})
	})
}

func (x *archive) assemble(ctx context.Context, in exporter.Input, o manifest.Options, names []string, p progress.Writer) (*manifest.Image, error) {
	working := exporter.Meter(p, progress.Status{ID: "exporting layers"})
	defer working.Done()
	o.Names = names
	img, err := x.assembler.Image(ctx, in, o, p)
	if err != nil {
		return nil, err
	}
	if x.typ == TypeDocker && img.Index {
		return nil, fmt.Errorf("%w; attest-store=referrers keeps attestations outside of the list", errList)
	}
	// Readers of archives want to know when. It is the image's time and not that of the export, which changes nothing.
	if _, ok := img.Desc.Annotations[ocispecs.AnnotationCreated]; !ok && img.Created != nil {
		img.Desc.Annotations = with(img.Desc.Annotations, ocispecs.AnnotationCreated, img.Created.UTC().Format(time.RFC3339))
	}
	return img, nil
}

// with is a copy of m with one more entry.
func with(m map[string]string, key, value string) map[string]string {
	m = maps.Clone(m)
	if m == nil {
		m = map[string]string{}
	}
	m[key] = value
	return m
}
