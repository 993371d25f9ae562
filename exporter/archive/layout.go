package archive

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/exporter/manifest"
)

// write writes the archive: blobs, then what finds them. Equal images give equal bytes.
func (x *archive) write(ctx context.Context, w io.Writer, img *manifest.Image, names []string) error {
	tw := tar.NewWriter(w)
	if err := putBytes(tw, ocispecs.ImageLayoutFile, []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	for _, dir := range []string{"blobs/", "blobs/sha256/"} {
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}); err != nil {
			return err
		}
	}
	for _, b := range img.Blobs {
		if b.Elsewhere {
			continue
		}
		if err := putBlob(ctx, tw, b); err != nil {
			return fmt.Errorf("write blob %s: %w", b.Desc.Digest, err)
		}
	}
	list, err := json.Marshal(index(img, names))
	if err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	if err := putBytes(tw, ocispecs.ImageIndexFile, list); err != nil {
		return err
	}
	if x.typ == TypeDocker {
		if err := putDocker(tw, img, names); err != nil {
			return err
		}
	}
	return tw.Close()
}

// index lists the image once per name, as containerd and BuildKit do.
func index(img *manifest.Image, names []string) ocispecs.Index {
	idx := ocispecs.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageIndex}
	if len(names) == 0 {
		idx.Manifests = append(idx.Manifests, img.Desc)
	}
	for _, name := range names {
		d := img.Desc
		d.Annotations = with(d.Annotations, images.AnnotationImageName, name)
		d.Annotations[ocispecs.AnnotationRefName] = tagOf(name)
		idx.Manifests = append(idx.Manifests, d)
	}
	// A layout has referrers in its index without a name (OCI Image Layout 1.1).
	for _, r := range img.Referrers {
		idx.Manifests = append(idx.Manifests, r.Desc)
	}
	return idx
}

// tagOf is what an OCI layout calls an image: the tag alone.
func tagOf(name string) string {
	if named, err := reference.ParseNormalizedNamed(name); err == nil {
		if tagged, ok := named.(reference.Tagged); ok {
			return tagged.Tag()
		}
	}
	return name
}

// putDocker adds what docker load reads.
func putDocker(tw *tar.Writer, img *manifest.Image, names []string) error {
	s := img.Singles[0]
	entry := struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{Config: blobPath(s.Config.Digest), Layers: []string{}}
	for _, name := range names {
		if named, err := reference.ParseNormalizedNamed(name); err == nil {
			name = reference.FamiliarString(named)
		}
		entry.RepoTags = append(entry.RepoTags, name)
	}
	for _, l := range s.Layers {
		entry.Layers = append(entry.Layers, blobPath(l.Digest))
	}
	b, err := json.Marshal([]any{entry})
	if err != nil {
		return fmt.Errorf("write manifest.json: %w", err)
	}
	return putBytes(tw, "manifest.json", b)
}

func blobPath(d digest.Digest) string { return "blobs/" + d.Algorithm().String() + "/" + d.Encoded() }

func putBlob(ctx context.Context, tw *tar.Writer, b manifest.Blob) (err error) {
	if b.Data != nil {
		return putBytes(tw, blobPath(b.Desc.Digest), b.Data)
	}
	r, err := b.Open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: blobPath(b.Desc.Digest), Mode: 0o444, Size: b.Desc.Size}); err != nil {
		return err
	}
	_, err = io.Copy(tw, r)
	return err
}

func putBytes(tw *tar.Writer, name string, b []byte) error {
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o444, Size: int64(len(b))}); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if _, err := tw.Write(b); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
