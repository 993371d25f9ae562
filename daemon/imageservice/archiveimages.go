package imageservice

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"

	cimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/source/image/manifest"
)

// images finds the images of an archive that was read. An index says more than manifest.json, if there are both.
func (a *archive) images(ctx context.Context) ([]loadable, error) {
	docker, err := a.dockerImages()
	if err != nil {
		return nil, err
	}
	if f := a.at(ocispecs.ImageIndexFile); f != nil && f.document != nil {
		return a.layoutImages(f.document, docker)
	}
	if docker == nil {
		return nil, invalid("%w", errNoImages)
	}
	var list []loadable
	for _, entry := range docker {
		d, err := a.makeManifest(ctx, entry)
		if err != nil {
			return nil, err
		}
		names, err := repoTags(entry)
		if err != nil {
			return nil, err
		}
		list = append(list, named(d, names)...)
	}
	return list, nil
}

// dockerImages reads manifest.json; nil if there is none.
func (a *archive) dockerImages() ([]dockerImage, error) {
	f := a.at("manifest.json")
	if f == nil || f.document == nil {
		return nil, nil
	}
	list := []dockerImage{}
	if err := json.Unmarshal(f.document, &list); err != nil {
		return nil, invalid("manifest.json of the archive: %w", err)
	}
	return list, nil
}

// layoutImages reads index.json. An archive with one image that the index does not name may name it in manifest.json.
func (a *archive) layoutImages(document []byte, docker []dockerImage) ([]loadable, error) {
	var index ocispecs.Index
	if err := json.Unmarshal(document, &index); err != nil {
		return nil, invalid("%s of the archive: %w", ocispecs.ImageIndexFile, err)
	}
	var list []loadable
	for _, d := range index.Manifests {
		if err := d.Digest.Validate(); err != nil {
			return nil, invalid("%s of the archive: %w", ocispecs.ImageIndexFile, err)
		}
		if !cimages.IsManifestType(d.MediaType) && !cimages.IsIndexType(d.MediaType) {
			continue // layouts may hold anything
		}
		name := layoutName(d.Annotations)
		plain := ocispecs.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
		if name == nil && len(index.Manifests) == 1 && len(docker) == 1 {
			names, err := repoTags(docker[0])
			if err != nil {
				return nil, err
			}
			list = append(list, named(plain, names)...)
			continue
		}
		list = append(list, loadable{target: plain, name: name})
	}
	if len(list) == 0 {
		return nil, invalid("%s of the archive names no image", ocispecs.ImageIndexFile)
	}
	return list, nil
}

// layoutName is the name that an index gives an image, if it is a whole one: a tag alone is none.
func layoutName(annotations map[string]string) reference.Named {
	if n, err := reference.ParseNormalizedNamed(annotations[cimages.AnnotationImageName]); err == nil {
		return reference.TagNameOnly(n)
	}
	text := annotations[ocispecs.AnnotationRefName]
	if !strings.ContainsAny(text, "/:") {
		return nil
	}
	if n, err := reference.ParseNormalizedNamed(text); err == nil {
		return reference.TagNameOnly(n)
	}
	return nil
}

// named is an image under each of its names, or under none.
func named(d ocispecs.Descriptor, names []reference.Named) (list []loadable) {
	for _, n := range names {
		list = append(list, loadable{target: d, name: n})
	}
	if len(list) == 0 {
		list = []loadable{{target: d}}
	}
	return list
}

func repoTags(entry dockerImage) (list []reference.Named, err error) {
	for _, t := range entry.RepoTags {
		n, err := reference.ParseNormalizedNamed(t)
		if err != nil {
			return nil, invalid("manifest.json of the archive: name %q: %w", t, err)
		}
		list = append(list, reference.TagNameOnly(n))
	}
	return list, nil
}

// makeManifest writes the manifest that an image of manifest.json has not got.
func (a *archive) makeManifest(ctx context.Context, entry dockerImage) (ocispecs.Descriptor, error) {
	none := ocispecs.Descriptor{}
	b, err := a.config(ctx, entry.Config)
	if err != nil {
		return none, err
	}
	var config ocispecs.Image
	if err := json.Unmarshal(b, &config); err != nil {
		return none, invalid("config %q of the archive: %w", entry.Config, err)
	}
	if len(config.RootFS.DiffIDs) != len(entry.Layers) {
		return none, invalid("config %q of the archive has %d layers, manifest.json %d", entry.Config, len(config.RootFS.DiffIDs), len(entry.Layers))
	}
	m := ocispecs.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest, Layers: []ocispecs.Descriptor{}}
	for i, name := range entry.Layers {
		d, err := a.layerOf(ctx, name, config.RootFS.DiffIDs[i])
		if err != nil {
			return none, err
		}
		m.Layers = append(m.Layers, d)
	}
	if m.Config, err = a.s.writeDocument(ctx, ocispecs.MediaTypeImageConfig, b); err != nil {
		return none, err
	}
	return a.s.writeJSON(ctx, ocispecs.MediaTypeImageManifest, m)
}

// config reads the config of an image, which may be a blob.
func (a *archive) config(ctx context.Context, name string) ([]byte, error) {
	if f := a.at(name); f != nil && f.document != nil {
		return f.document, nil
	}
	d, ok := blobDigest(clean(name))
	if !ok {
		return nil, invalid("config %q is not in the archive", name)
	}
	b, err := manifest.Through(a.s.images.Content(), nil)(ctx, ocispecs.Descriptor{Digest: d})
	if errdefs.IsNotFound(err) {
		err = invalid("config %q is not in the archive", name)
	}
	return b, err
}

// layerOf describes a layer by what the archive has under its name.
func (a *archive) layerOf(ctx context.Context, name string, want digest.Digest) (ocispecs.Descriptor, error) {
	if f := a.at(name); f != nil && f.layer != nil {
		if got := f.layer.Layers()[0].DiffID; got != want {
			return ocispecs.Descriptor{}, invalid("layer %q of the archive is %s, and the image's config says %s", name, got, want)
		}
		return ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayer, Digest: want, Size: f.size}, nil
	}
	d, ok := blobDigest(clean(name))
	if !ok {
		return ocispecs.Descriptor{}, invalid("layer %q is not in the archive", name)
	}
	info, err := a.s.images.Content().Info(ctx, d)
	if err != nil {
		return ocispecs.Descriptor{}, invalid("layer %q is not in the archive", name)
	}
	mediaType, err := a.compressionOf(ctx, d)
	return ocispecs.Descriptor{MediaType: mediaType, Digest: d, Size: info.Size}, err
}

// compressionOf finds the media type of a compressed layer by its first bytes.
func (a *archive) compressionOf(ctx context.Context, d digest.Digest) (string, error) {
	ra, err := a.s.images.Content().ReaderAt(ctx, ocispecs.Descriptor{Digest: d})
	if err != nil {
		return "", err
	}
	defer func() { _ = ra.Close() }() // it was only read
	head := make([]byte, 4)
	_, _ = ra.ReadAt(head, 0) // a short one is neither
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return ocispecs.MediaTypeImageLayerGzip, nil
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return ocispecs.MediaTypeImageLayerZstd, nil
	}
	return "", invalid("layer %s of the archive is compressed in a way that images do not know", d)
}
