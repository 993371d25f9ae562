package image

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver/flight"
	"github.com/slipwaybuild/slipway/solver/layers/images"
	"github.com/slipwaybuild/slipway/solver/progress"
	"github.com/slipwaybuild/slipway/solver/source"
	"github.com/slipwaybuild/slipway/solver/source/image/manifest"
	"github.com/slipwaybuild/slipway/solver/source/registry"
)

// found is the answer to a query.
type found struct {
	ref     string
	image   *manifest.Image
	local   bool   // it was the image store that knew the name
	warning string // for all who asked
	// admitted says that the root was here, named by digest, and that who asked may have it.
	admitted bool
	// open says that its root is labelled as open to anybody.
	open bool
}

// flightKey makes an answer shared only among those who ask the same with the same sessions.
type flightKey struct {
	ref, platform, sessions string
	mode                    Mode
	checksum                digest.Digest
}

// find answers a query, once for all who ask it at a time.
func (s *Source) find(ctx context.Context, env source.Env, q query) (_ *found, err error) {
	defer status(env.Progress, "resolve "+q.ref)()
	key := flightKey{
		ref: q.ref, mode: q.mode, checksum: q.checksum,
		platform: platforms.FormatAll(q.platform), sessions: strings.Join(env.Sessions().Keys(), "\n"),
	}
	f, err := s.flights.Do(ctx, key, env.Sessions, func() flight.Work[*found] {
		return flight.Work[*found]{Run: func(c *flight.Call) (*found, error) {
			return s.answer(c.Context(), q, sessionsOf(c))
		}}
	})
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", q.ref, err)
	}
	if f.warning != "" && env.Progress != nil {
		env.Progress.Warn(progress.Warning{Level: 1, Short: []byte(f.warning)})
	}
	return f, nil
}

// sessionsOf returns those of whoever waits for the flight at the time.
func sessionsOf(c *flight.Call) func() *session.Group {
	return func() *session.Group {
		var groups []*session.Group
		for _, p := range c.Participants() {
			groups = append(groups, p.(func() *session.Group)())
		}
		return session.Join(groups...)
	}
}

func (s *Source) answer(ctx context.Context, q query, sessions func() *session.Group) (*found, error) {
	ctx, err := s.images.Keeping(ctx)
	if err != nil {
		return nil, err
	}
	r := s.registry.Resolver(registry.ResolverOptions{Sessions: sessions})
	f, root, err := s.resolve(ctx, q, r)
	if err != nil {
		return nil, err
	}
	if q.checksum != "" && root.Digest != q.checksum {
		return nil, fmt.Errorf("image digest %s for %s does not match expected checksum %s", root.Digest, q.ref, q.checksum)
	}
	f.image, err = manifest.Read(ctx, s.documents(f, r), root, q.platform)
	if err != nil {
		return nil, err
	}
	if err := s.images.Keep(ctx, f.image.Digests()...); err != nil {
		return nil, err
	}
	if f.local {
		return f, nil
	}
	if err := s.noteOrigin(ctx, f.ref, f.image.Digests()); err != nil || f.open {
		return f, err
	}
	return f, s.noteOpen(ctx, f, !f.admitted && r.Granted(f.ref, f.image.Digests()...))
}

// resolve finds out what the name means.
func (s *Source) resolve(ctx context.Context, q query, r *registry.Resolver) (*found, ocispecs.Descriptor, error) {
	f := &found{ref: q.ref}
	if q.digest != "" {
		info, err := s.images.Content().Info(ctx, q.digest)
		if err == nil {
			err = s.mayHave(ctx, f, info, r)
		}
		if f.admitted || f.local {
			return f, ocispecs.Descriptor{Digest: q.digest, Size: info.Size}, nil
		}
		if err != nil && !errdefs.IsNotFound(err) {
			return nil, ocispecs.Descriptor{}, err
		}
	}
	if q.mode == Local {
		if root, ok, err := s.local(ctx, q); ok || err != nil {
			f.local = true
			return f, root, err
		}
	}
	_, root, err := r.Resolve(ctx, q.ref)
	if err == nil || q.mode == Pull || !registry.IsUnreachable(err) {
		return f, root, err
	}
	root, ok, localErr := s.local(ctx, q)
	if localErr != nil || !ok {
		return nil, root, err
	}
	s.log.WarnContext(ctx, "using the local image, as the registry cannot be reached", "image", q.ref, "error", err)
	f.local = true
	f.warning = fmt.Sprintf("Using the local image %s, which may be out of date: %v", q.ref, err)
	return f, root, nil
}

// local looks a name up in the image store. An image that is not there for the platform is not there.
func (s *Source) local(ctx context.Context, q query) (ocispecs.Descriptor, bool, error) {
	img, err := s.images.Get(ctx, q.ref)
	if errdefs.IsNotFound(err) && q.digest != "" && q.mode == Local {
		img, err = s.byDigest(ctx, q.digest)
	}
	if errdefs.IsNotFound(err) {
		return ocispecs.Descriptor{}, false, nil
	}
	if err != nil {
		return ocispecs.Descriptor{}, false, err
	}
	_, err = manifest.Read(ctx, manifest.Through(s.images.Content(), nil), img.Target, q.platform)
	if errdefs.IsNotFound(err) {
		return ocispecs.Descriptor{}, false, nil
	}
	return img.Target, err == nil, err
}

// byDigest finds an image of the store by what it is, whatever its name.
func (s *Source) byDigest(ctx context.Context, d digest.Digest) (images.Image, error) {
	all, err := s.images.List(ctx)
	if err != nil {
		return images.Image{}, err
	}
	for _, i := range all {
		if i.Target.Digest == d {
			return i, nil
		}
	}
	return images.Image{}, fmt.Errorf("no image is %s: %w", d, errdefs.ErrNotFound)
}

// opener opens documents in the repository of ref.
func opener(ref string, r *registry.Resolver) manifest.Opener {
	return func(ctx context.Context, d ocispecs.Descriptor) (io.ReadCloser, error) {
		if d.Size == 0 {
			// Named by digest alone.
			_, known, err := r.Resolve(ctx, ref)
			if err != nil {
				return nil, err
			}
			d = known
		}
		f, err := r.Fetcher(ctx, ref)
		if err != nil {
			return nil, err
		}
		return f.Fetch(ctx, d)
	}
}

// status shows a line of progress until the function it returns is called. w may be nil.
func status(w progress.Writer, id string) func() {
	if w == nil {
		return func() {}
	}
	start := time.Now()
	w.Status(progress.Status{ID: id, Started: &start})
	return func() {
		end := time.Now()
		w.Status(progress.Status{ID: id, Started: &start, Completed: &end})
	}
}
