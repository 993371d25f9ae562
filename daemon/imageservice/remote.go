package imageservice

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	cimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/distribution/reference"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/source/image/manifest"
	"github.com/slipwaybuild/slipway/solver/source/registry"
)

// Remote asks a registry what a name means, and which platforms that is for. Nothing is stored.
func (s *Service) Remote(ctx context.Context, named reference.Named, sessions Sessions) (ocispecs.Descriptor, []ocispecs.Platform, error) {
	ref := reference.TagNameOnly(named).String()
	resolver := s.registry.Resolver(registry.ResolverOptions{Sessions: sessions})
	_, d, err := resolver.Resolve(ctx, ref)
	if err != nil {
		return d, nil, err
	}
	f, err := resolver.Fetcher(ctx, ref)
	if err != nil {
		return d, nil, err
	}
	b, err := document(ctx, f, d)
	if err != nil {
		return d, nil, err
	}
	var doc struct {
		Config    ocispecs.Descriptor
		Manifests []ocispecs.Descriptor
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return d, nil, fmt.Errorf("%w: %s: %w", manifest.ErrNotImage, ref, err)
	}
	list := []ocispecs.Platform{}
	for _, m := range doc.Manifests {
		if m.Platform != nil && !isAttestation(m) {
			list = append(list, *m.Platform)
		}
	}
	if cimages.IsConfigType(doc.Config.MediaType) {
		b, err := document(ctx, f, doc.Config)
		if err != nil {
			return d, nil, err
		}
		var p ocispecs.Platform
		if err := json.Unmarshal(b, &p); err != nil {
			return d, nil, fmt.Errorf("%w: config of %s: %w", manifest.ErrNotImage, ref, err)
		}
		list = append(list, p)
	}
	return d, list, nil
}

// document fetches a manifest or config, verified.
func document(ctx context.Context, f remotes.Fetcher, d ocispecs.Descriptor) ([]byte, error) {
	r, err := f.Fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }() // it was only read
	b, err := io.ReadAll(io.LimitReader(r, manifest.MaxSize+1))
	if err != nil {
		return nil, err
	}
	if len(b) > manifest.MaxSize {
		return nil, fmt.Errorf("%s has more than the %d bytes allowed", d.Digest, manifest.MaxSize)
	}
	if got := d.Digest.Algorithm().FromBytes(b); got != d.Digest {
		return nil, &manifest.DigestError{Want: d.Digest, Got: got}
	}
	return b, nil
}

// Login asks a registry whether it takes the sessions' account for it.
func (s *Service) Login(ctx context.Context, host string, sessions Sessions) error {
	return s.registry.Resolver(registry.ResolverOptions{Sessions: sessions}).Check(ctx, host)
}

// PullAll pulls every tag of a repository, in the registry's order.
func (s *Service) PullAll(ctx context.Context, repo reference.Named, platform *ocispecs.Platform, sessions Sessions, p Progress) error {
	repo = reference.TrimNamed(repo)
	tags, err := s.registry.Resolver(registry.ResolverOptions{Sessions: sessions}).Tags(ctx, repo.String())
	if err != nil {
		return err
	}
	for _, t := range tags {
		named, err := reference.WithTag(repo, t)
		if err != nil {
			return fmt.Errorf("tag %.200q of %s: %w", t, repo, err)
		}
		if err := s.Pull(ctx, named, platform, sessions, p); err != nil {
			return err
		}
	}
	return nil
}
