package image

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/source/image/manifest"
	"github.com/slipwaybuild/slipway/solver/source/registry"
)

// Content is found by digest whatever it was called when it came, so a digest alone must not open what another repository gave:
// the name beside it would be worth nothing, and neither would the registry's word on who may pull. Each blob is labelled with the
// repositories that gave it, as containerd does.

// A digest does not open what is private either: before content that came from a registry is given to a client who names it by
// digest, the registry is asked whether it would give it to that client. It is spared that where it gave the content to somebody
// without credentials, which another label says.

// labelOpen begins the name of the label whose value is the latest repository that gives a blob to anybody; the rest is that of the
// label for repositories.
const labelOpen = "slipway.open/"

// openTime bounds finding out whether a repository is open to anybody. Nobody waits for it.
const openTime = 30 * time.Second

// maxLooked bounds of how many images it is remembered that this was asked.
const maxLooked = 4096

// repository is the label and the value for the repository of a normalised ref.
func repository(ref string) (label, path string, ok bool) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", "", false
	}
	return labels.LabelDistributionSource + "." + reference.Domain(named), reference.Path(named), true
}

// cameFrom tells whether the repository of ref is known to have given the blob.
func cameFrom(info content.Info, ref string) bool {
	label, path, ok := repository(ref)
	return ok && slices.Contains(strings.Split(info.Labels[label], ","), path)
}

// mayHave is about a blob that is here and was named by digest in the repository of f.ref. It is local if an image of the store with that
// repository's name is the blob: such images everybody may have who may use the daemon. It is admitted if the repository gave it once
// and would give it to who asks now, which the registry is asked if nothing else tells. It is neither if the repository is not known
// to have it.
func (s *Source) mayHave(ctx context.Context, f *found, info content.Info, r *registry.Resolver) error {
	label, path, ok := repository(f.ref)
	if !ok {
		return nil
	}
	all, err := s.images.List(ctx)
	if err != nil {
		return err
	}
	for _, img := range all {
		if img.Target.Digest != info.Digest {
			continue
		}
		if l, p, ok := repository(img.Name); ok && l == label && p == path {
			f.local = true
			return nil
		}
	}
	if !cameFrom(info, f.ref) {
		return nil
	}
	f.open = info.Labels[labelOpen+label] == path
	if !f.open {
		if err := r.Admit(ctx, f.ref); err != nil {
			return err
		}
	}
	f.admitted = true
	return nil
}

// documents reads what an image consists of but its layers: from the store what its repository gave before, all else from there.
func (s *Source) documents(f *found, r *registry.Resolver) manifest.Getter {
	store, origin := s.images.Content(), opener(f.ref, r)
	if f.local {
		return manifest.Through(store, origin)
	}
	return manifest.From(store, origin, func(info content.Info) bool { return cameFrom(info, f.ref) })
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

// noteOpen labels the root of an image that its repository gives to anybody. If it was given to somebody with a credential that is
// found out while the build goes on.
func (s *Source) noteOpen(ctx context.Context, f *found, known bool) error {
	label, path, ok := repository(f.ref)
	if !ok {
		return nil
	}
	root := f.image.Root.Digest
	note := func(ctx context.Context) error {
		_, err := s.images.Content().Update(ctx, content.Info{Digest: root, Labels: map[string]string{labelOpen + label: path}}, "labels."+labelOpen+label)
		return err
	}
	if known {
		return note(ctx)
	}
	named, err := reference.ParseNormalizedNamed(f.ref)
	if err != nil {
		return err
	}
	pinned, err := reference.WithDigest(reference.TrimNamed(named), root)
	if err != nil || !s.firstLook(pinned.String()) {
		return err
	}
	s.looking.Go(func() {
		ctx, cancel := context.WithTimeout(s.looks, openTime)
		defer cancel()
		if !s.registry.Open(ctx, pinned.String()) {
			return
		}
		if err := note(ctx); err != nil && !errdefs.IsNotFound(err) && ctx.Err() == nil {
			s.log.WarnContext(ctx, "cannot note that an image is open to anybody", "image", pinned.String(), "error", err)
		}
	})
	return nil
}

// firstLook tells whether nobody looked yet whether an image, named by digest, is open.
func (s *Source) firstLook(image string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.looked) >= maxLooked {
		clear(s.looked)
	}
	if s.looked[image] {
		return false
	}
	s.looked[image] = true
	return true
}
