package daemon

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	ctdimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	distref "github.com/distribution/reference"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/exporter"
	exportimage "github.com/slipwaybuild/slipway/exporter/image"
	"github.com/slipwaybuild/slipway/frontend"
	"github.com/slipwaybuild/slipway/frontend/classic"
	"github.com/slipwaybuild/slipway/frontend/gateway"
	"github.com/slipwaybuild/slipway/solver/layers/images"
	"github.com/slipwaybuild/slipway/solver/progress"
)

const (
	// unnamedImage is a repository to speak of images by digest that have no name.
	unnamedImage = "slipway.invalid/image"
)

// stepImages are the images of a build's steps. They lie in the image store without a name, as docker has them, and are found again
// by their parents.
type stepImages struct{ build *build }

var _ classic.Images = stepImages{}

// storedImage is an image by its manifest.
type storedImage struct {
	classic.Image
	target  ocispecs.Descriptor
	created time.Time
}

// Commit implements [classic.Images].
func (s stepImages) Commit(ctx context.Context, fs frontend.Reference, config []byte, parent digest.Digest) (img classic.Image, err error) {
	b := s.build
	in := exporter.Input{Sessions: b.sessions, Fetcher: b.engine.fetcher(b.groupNow), Metadata: map[string][]byte{}}
	res := frontend.Result{}
	if fs != nil {
		res.SetRef(&gateway.Reference{Reference: fs})
	}
	stack, err := b.stackOfResult(ctx, &res)
	if err != nil {
		return img, err
	}
	var p ocispecs.Platform
	if err := json.Unmarshal(config, &p); err != nil {
		return img, fmt.Errorf("platform of the image: %w", err)
	}
	in.Platforms = []exporter.Platform{{ID: "image", Platform: p, Ref: stack, Config: config}}
	x, err := b.engine.exporters.New(exportimage.TypeMoby, 0, map[string]string{})
	if err != nil {
		return img, err
	}
	answer, err := x.Export(ctx, in, progress.NewWriter(progress.Discard, ""))
	if err != nil {
		return img, err
	}
	target, err := targetOf(answer)
	if err != nil {
		return img, err
	}
	if parent == "" {
		parent = images.FromScratch
	}
	store := b.engine.images.Content()
	info := content.Info{Digest: target.Digest, Labels: map[string]string{images.LabelParent: parent.String()}}
	if _, err := store.Update(ctx, info, "labels."+images.LabelParent); err != nil {
		return img, fmt.Errorf("note the parent of image %s: %w", target.Digest, err)
	}
	found, err := s.read(ctx, target)
	return found.Image, err
}

// targetOf reads the manifest's descriptor out of an exporter's answer.
func targetOf(answer map[string]string) (d ocispecs.Descriptor, err error) {
	raw, err := base64.StdEncoding.DecodeString(answer[exptypes.ExporterImageDescriptorKey])
	if err == nil {
		err = json.Unmarshal(raw, &d)
	}
	if err != nil {
		return d, fmt.Errorf("descriptor of the image: %w", err)
	}
	return d, nil
}

// read reads an image of one platform. What is none is errdefs.ErrNotFound.
func (s stepImages) read(ctx context.Context, target ocispecs.Descriptor) (img storedImage, err error) {
	store := s.build.engine.images.Content()
	raw, err := content.ReadBlob(ctx, store, target)
	if err != nil {
		return img, err
	}
	var m ocispecs.Manifest
	if json.Unmarshal(raw, &m) != nil || m.Config.Digest == "" {
		return img, fmt.Errorf("%s is no image manifest: %w", target.Digest, errdefs.ErrNotFound)
	}
	if target.MediaType == "" {
		target.MediaType = m.MediaType
	}
	if img.Config, err = content.ReadBlob(ctx, store, m.Config); err != nil {
		return img, err
	}
	var known struct{ Created time.Time }
	if err := json.Unmarshal(img.Config, &known); err != nil {
		return img, fmt.Errorf("config of image %s: %w", m.Config.Digest, err)
	}
	img.ID, img.target, img.created = m.Config.Digest, target, known.Created
	return img, nil
}

// Children implements [classic.Images].
func (s stepImages) Children(ctx context.Context, parent digest.Digest) ([]classic.Image, error) {
	if parent == "" {
		parent = images.FromScratch
	}
	named, err := s.targets(ctx)
	if err != nil {
		return nil, err
	}
	var found []storedImage
	var targets []ocispecs.Descriptor
	err = s.build.engine.images.Content().Walk(ctx, func(i content.Info) error {
		if d, ok := named[i.Digest]; ok {
			targets = append(targets, d)
		}
		return nil
	}, fmt.Sprintf("labels.%q==%s", images.LabelParent, parent))
	if err != nil {
		return nil, fmt.Errorf("list the images made of %s: %w", parent, err)
	}
	for _, d := range targets {
		img, err := s.read(ctx, d)
		if errdefs.IsNotFound(err) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		found = append(found, img)
	}
	slices.SortFunc(found, func(a, b storedImage) int { return b.created.Compare(a.created) })
	list := make([]classic.Image, len(found))
	for i, f := range found {
		list[i] = f.Image
	}
	return list, nil
}

// targets are the manifests that images of the store are.
func (s stepImages) targets(ctx context.Context) (map[digest.Digest]ocispecs.Descriptor, error) {
	all, err := s.build.engine.images.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	out := map[digest.Digest]ocispecs.Descriptor{}
	for _, i := range all {
		if ctdimages.IsManifestType(i.Target.MediaType) {
			out[i.Target.Digest] = i.Target
		}
	}
	return out, nil
}

// byID finds the images whose id begins so.
func (s stepImages) byID(ctx context.Context, id string) (list []storedImage, err error) {
	named, err := s.targets(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range named {
		img, err := s.read(ctx, d)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(img.ID.Encoded(), id) {
			list = append(list, img)
		}
	}
	return list, nil
}

// Has implements [classic.Images].
func (s stepImages) Has(ctx context.Context, image distref.Named) (bool, error) {
	_, err := s.build.engine.images.Get(ctx, image.String())
	if err == nil || !errdefs.IsNotFound(err) {
		return err == nil, err
	}
	wanted, ok := image.(distref.Digested)
	if !ok {
		return false, nil
	}
	all, err := s.build.engine.images.List(ctx)
	if err != nil {
		return false, fmt.Errorf("list images: %w", err)
	}
	return slices.ContainsFunc(all, func(i images.Image) bool { return i.Target.Digest == wanted.Digest() }), nil
}

// Reference implements [classic.Images].
func (s stepImages) Reference(ctx context.Context, id string) (string, error) {
	found, err := s.byID(ctx, id)
	if err != nil || len(found) == 0 {
		return "", err
	}
	if slices.ContainsFunc(found, func(i storedImage) bool { return i.ID != found[0].ID }) {
		return "", nil // of several images, which is meant?
	}
	return unnamedImage + "@" + found[0].target.Digest.String(), nil
}

// Lineage implements [classic.Images].
func (s stepImages) Lineage(ctx context.Context, name string) ([]digest.Digest, error) {
	named, err := distref.ParseNormalizedNamed(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalidRequest, err)
	}
	img, err := s.build.engine.images.Get(ctx, distref.TagNameOnly(named).String())
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	byID := map[digest.Digest]ocispecs.Descriptor{}
	targets, err := s.targets(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range targets {
		if one, err := s.read(ctx, d); err == nil {
			byID[one.ID] = d
		}
	}
	var ids []digest.Digest
	for next, ok := img.Target, true; ok && len(ids) < maxLineage; {
		one, err := s.read(ctx, next)
		if err != nil {
			return ids, ignoreMissing(err)
		}
		ids = append(ids, one.ID)
		info, err := s.build.engine.images.Content().Info(ctx, next.Digest)
		if err != nil {
			return ids, ignoreMissing(err)
		}
		next, ok = byID[digest.Digest(info.Labels[images.LabelParent])]
	}
	return ids, nil
}

// maxLineage bounds how many images one can have been made of, one by one.
const maxLineage = 10000

func ignoreMissing(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}
