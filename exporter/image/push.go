package image

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/distribution/reference"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/exporter/manifest"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver/progress"
	"github.com/slipwaybuild/slipway/solver/source/registry"
	"golang.org/x/sync/errgroup"
)

// pushParallel bounds the layers of one image that are pushed at a time.
const pushParallel = 4

// Uploader brings one piece of content to a registry, from the beginning as often as the connection breaks. What is there
// already is not sent. sent is told how many bytes of the current attempt have gone. [registry.Resolver] is one.
type Uploader interface {
	Push(ctx context.Context, ref string, from content.Provider, d ocispecs.Descriptor, sent func(int64)) error
}

// pushAll pushes the image under every name.
func (x *image) pushAll(ctx context.Context, in exporter.Input, img *manifest.Image, names []string, p progress.Writer) error {
	to, ok := x.Registry(func() *session.Group { return in.Sessions }, x.insecure).(Uploader)
	if !ok {
		return errors.New("push: the registry client cannot upload")
	}
	there := map[string]bool{} // repositories that have all but the name
	for _, name := range names {
		named, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			return fmt.Errorf("failed to push %s: %w", name, err)
		}
		repo := reference.TrimNamed(named).String()
		push := target{to: to, repo: repo, img: img, p: p}
		if !there[repo] {
			if err := push.content(ctx); err != nil {
				return fmt.Errorf("failed to push %s: %w", name, err)
			}
			there[repo] = true
		}
		if x.byDigest {
			name = repo + "@" + img.Desc.Digest.String()
		}
		err = push.root(ctx, name)
		if err == nil {
			err = push.referrers(ctx)
		}
		if err != nil {
			return fmt.Errorf("failed to push %s: %w", name, err)
		}
	}
	return nil
}

// target is a repository that an image is pushed to.
type target struct {
	to   Uploader
	repo string
	img  *manifest.Image
	p    progress.Writer
}

// content pushes all but the manifest or index on top: a registry refuses a manifest whose blobs it has not.
func (t target) content(ctx context.Context) error {
	sent := exporter.Meter(t.p, progress.Status{ID: "pushing layers"})
	defer sent.Done()
	ref := t.repo + "@" + t.img.Desc.Digest.String()
	eg, egCtx := errgroup.WithContext(ctx)
	eg.SetLimit(pushParallel)
	for _, b := range t.img.Blobs {
		if b.Children == nil && !b.Elsewhere {
			eg.Go(func() error { return t.blob(egCtx, ref, b, sent) })
		}
	}
	if err := eg.Wait(); err != nil {
		return err
	}
	for _, b := range t.img.Blobs {
		if b.Children != nil && b.Desc.Digest != t.img.Desc.Digest {
			if err := t.blob(ctx, ref, b, sent); err != nil {
				return err
			}
		}
	}
	return nil
}

// root pushes the manifest or index on top, which makes the image appear.
func (t target) root(ctx context.Context, name string) error {
	sent := exporter.Meter(t.p, progress.Status{ID: fmt.Sprintf("pushing manifest for %s@%s", name, t.img.Desc.Digest)})
	defer sent.Done()
	for _, b := range t.img.Blobs {
		if b.Desc.Digest == t.img.Desc.Digest {
			return t.blob(ctx, name, b, sent)
		}
	}
	return fmt.Errorf("image has no content %s", t.img.Desc.Digest)
}

// blob pushes one blob unless the registry has it, or can mount it from where it came.
func (t target) blob(ctx context.Context, ref string, b manifest.Blob, sent *exporter.Sent) error {
	d := b.Desc
	if b.Remote != nil {
		d = registry.MountFrom(d, ref, b.Remote.Ref)
	}
	var last int64
	return t.to.Push(ctx, ref, b.Provider(), d, func(n int64) {
		sent.Add(n - last)
		last = n
	})
}
