package image

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/exporter/manifest"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// keep writes the small content into the store and gives the image its names, which it returns with those added that clients
// are told. Layers stay where they are, unless others read the store: then it must have them.
func (x *image) keep(ctx context.Context, in exporter.Input, img *manifest.Image, names []string, p progress.Writer) ([]string, error) {
	stands, err := x.stands(ctx, in, img, names)
	if err != nil {
		return nil, err
	}
	if stands {
		x.tellStanding(img, names, p)
		return names, nil
	}
	if err := x.writeAll(ctx, img, p); err != nil {
		return nil, err
	}
	if err := x.tie(ctx, img); err != nil {
		return nil, err
	}
	var refs []*layers.Ref
	for _, platform := range in.Platforms {
		refs = append(refs, platform.Ref)
	}
	if x.Images.Shared() && x.incomplete {
		refs = nil // nothing is asked of the layers
	}
	if x.Images.Shared() && len(refs) > 0 {
		err := step(p, "storing layers", func() error { return x.Images.Bring(ctx, img.Desc, in.Fetcher, refs...) })
		if err != nil {
			return nil, err
		}
	}
	said, err := x.name(ctx, img, names, refs, p)
	if err != nil || !x.unpack || !x.Images.Shared() {
		return said, err
	}
	what := img.Desc.Digest.String()
	if len(said) > 0 {
		what = said[0]
	}
	return said, step(p, "unpacking to "+what, func() error { return x.Images.Unpack(ctx, what, img.Desc) })
}

// stands tells whether the store has just this image under these names. Settings that ask for more than names, and what refers to an
// image from outside, are not looked into: then it is stored anew.
func (x *image) stands(ctx context.Context, in exporter.Input, img *manifest.Image, names []string) (bool, error) {
	if len(names) == 0 || x.canonical || x.unpack || x.danglingPrefix != "" || len(img.Referrers) > 0 {
		return false, nil
	}
	var contents []digest.Digest
	for _, b := range img.Blobs {
		if b.Data != nil {
			contents = append(contents, b.Desc.Digest)
		}
	}
	var refs []*layers.Ref
	for _, platform := range in.Platforms {
		refs = append(refs, platform.Ref)
	}
	for _, name := range names {
		if ok, err := x.Images.Stands(ctx, name, img.Desc, contents, refs...); !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

// tellStanding shows what keep shows, of an image that is there.
func (x *image) tellStanding(img *manifest.Image, names []string, p progress.Writer) {
	nothing := func() error { return nil }
	for _, b := range img.Blobs {
		if b.Data != nil {
			_ = step(p, x.what(img, b)+b.Desc.Digest.String(), nothing) // it does not fail
		}
	}
	for _, name := range names {
		_ = step(p, "naming to "+name, nothing)
	}
}

// name gives the image its names.
func (x *image) name(ctx context.Context, img *manifest.Image, names []string, refs []*layers.Ref, p progress.Writer) ([]string, error) {
	put := func(name string) error { return x.Images.Put(ctx, name, img.Desc, refs...) }
	for _, name := range names {
		if canonical := canonicalName(name, img.Desc.Digest); x.canonical && canonical != "" {
			if err := put(canonical); err != nil {
				return nil, err
			}
		}
		if err := step(p, "naming to "+name, func() error { return put(name) }); err != nil {
			return nil, err
		}
	}
	switch {
	case x.danglingPrefix != "" && (len(names) == 0 || !x.danglingEmptyOnly):
		dangling := x.danglingPrefix + "@" + img.Desc.Digest.String()
		return append(slices.Clone(names), dangling), put(dangling)
	case len(names) == 0:
		return nil, put("")
	}
	return names, nil
}

// canonicalName is the repository with the digest; empty if the name has one.
func canonicalName(name string, d digest.Digest) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil || strings.Contains(name, "@") {
		return ""
	}
	return reference.TrimNamed(named).String() + "@" + d.String()
}

func (x *image) writeAll(ctx context.Context, img *manifest.Image, p progress.Writer) error {
	for _, b := range img.Blobs {
		if b.Data == nil {
			continue
		}
		err := step(p, x.what(img, b)+b.Desc.Digest.String(), func() error { return write(ctx, x.Images.Content(), b) })
		if err != nil {
			return err
		}
	}
	return nil
}

// write puts a config, manifest or index into the content store, with the references that keep what it names from being
// collected.
func write(ctx context.Context, store content.Store, b manifest.Blob) error {
	labels := map[string]string{}
	for i, child := range b.Children {
		labels[fmt.Sprintf("containerd.io/gc.ref.content.%d", i)] = child.String()
	}
	err := content.WriteBlob(ctx, store, "export-"+b.Desc.Digest.String(), bytes.NewReader(b.Data), b.Desc, content.WithLabels(labels))
	if err != nil {
		return fmt.Errorf("store %s: %w", b.Desc.Digest, err)
	}
	return nil
}
