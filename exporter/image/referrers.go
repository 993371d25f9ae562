package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/exporter/manifest"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// Referrers lists what refers to a manifest in a repository. [registry.Resolver] does.
type Referrers interface {
	Referrers(ctx context.Context, ref string, d digest.Digest) ([]ocispecs.Descriptor, error)
}

// referrers makes what refers to the image found there, whose manifests were pushed before. Registries that keep lists of referrers
// have done so by themselves; for others the client keeps one, under a tag made of the digest (OCI Distribution 1.1). Two clients who
// do that for one image at the same time may lose one another's entries: the schema has no way around it.
func (t target) referrers(ctx context.Context) error {
	subjects := map[digest.Digest][]ocispecs.Descriptor{}
	for _, r := range t.img.Referrers {
		subjects[r.Subject] = append(subjects[r.Subject], r.Desc)
	}
	for subject, own := range subjects {
		if err := t.referTo(ctx, subject, own); err != nil {
			return fmt.Errorf("attach attestations to %s: %w", subject, err)
		}
	}
	return nil
}

func (t target) referTo(ctx context.Context, subject digest.Digest, own []ocispecs.Descriptor) error {
	lister, ok := t.to.(Referrers)
	if !ok {
		return errors.New("the registry client cannot list referrers")
	}
	list, err := lister.Referrers(ctx, t.repo+"@"+subject.String(), subject)
	if err != nil {
		return err
	}
	before := len(list)
	for _, d := range own {
		if !slices.ContainsFunc(list, func(o ocispecs.Descriptor) bool { return o.Digest == d.Digest }) {
			list = append(list, d)
		}
	}
	if len(list) == before {
		return nil
	}
	data, err := json.MarshalIndent(ocispecs.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageIndex, Manifests: list,
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("write list of referrers: %w", err)
	}
	tag := t.repo + ":" + strings.Replace(subject.String(), ":", "-", 1)
	sent := exporter.Meter(t.p, progress.Status{ID: "pushing list of referrers to " + tag})
	defer sent.Done()
	d := ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageIndex, Digest: digest.FromBytes(data), Size: int64(len(data))}
	return t.blob(ctx, tag, manifest.Blob{Desc: d, Data: data, Children: []digest.Digest{subject}}, sent)
}

// tie makes the store keep what refers to an image as long as the image.
func (x *image) tie(ctx context.Context, img *manifest.Image) error {
	for _, r := range img.Referrers {
		label := "containerd.io/gc.ref.content.referrer." + r.Desc.Digest.Encoded()[:12]
		info := content.Info{Digest: r.Subject, Labels: map[string]string{label: r.Desc.Digest.String()}}
		if _, err := x.Images.Content().Update(ctx, info, "labels."+label); err != nil {
			return fmt.Errorf("keep attestations of %s: %w", r.Subject, err)
		}
	}
	return nil
}
