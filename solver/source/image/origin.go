package image

import (
	"context"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
)

// Content is found by digest whatever it was called when it came, so a digest alone must not open what another repository gave:
// the name beside it would be worth nothing, and neither would the registry's word on who may pull. Each blob is labelled with the
// repositories that gave it, as containerd does.

// repository is the label and the value for the repository of a normalised ref.
func repository(ref string) (label, path string, ok bool) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", "", false
	}
	return labels.LabelDistributionSource + "." + reference.Domain(named), reference.Path(named), true
}

// cameFrom tells whether the repository of ref is known to hold the blob, or an image of the store with that repository's name
// does.
func (s *Source) cameFrom(ctx context.Context, info content.Info, ref string) (bool, error) {
	label, path, ok := repository(ref)
	if !ok {
		return false, nil
	}
	if slices.Contains(strings.Split(info.Labels[label], ","), path) {
		return true, nil
	}
	all, err := s.images.List(ctx)
	if err != nil {
		return false, err
	}
	for _, img := range all {
		if img.Target.Digest != info.Digest {
			continue
		}
		if l, p, ok := repository(img.Name); ok && l == label && p == path {
			return true, nil
		}
	}
	return false, nil
}

// noteOrigin labels blobs with the repository of ref, which gave them.
func (s *Source) noteOrigin(ctx context.Context, ref string, blobs []digest.Digest) error {
	label, path, ok := repository(ref)
	if !ok {
		return nil
	}
	store := s.images.Content()
	for _, d := range blobs {
		info, err := store.Info(ctx, d)
		if err != nil {
			return err
		}
		var paths []string
		if v := info.Labels[label]; v != "" {
			paths = strings.Split(v, ",")
		}
		if slices.Contains(paths, path) {
			continue
		}
		// The latest is what counts when there are more than a label can hold.
		value := strings.Join(append(paths, path), ",")
		if labels.Validate(label, value) != nil {
			value = path
		}
		if _, err := store.Update(ctx, content.Info{Digest: d, Labels: map[string]string{label: value}}, "labels."+label); err != nil {
			return err
		}
	}
	return nil
}
