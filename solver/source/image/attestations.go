package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver/source"
	"github.com/slipwaybuild/slipway/solver/source/image/manifest"
	"github.com/slipwaybuild/slipway/solver/source/registry"
)

// How BuildKit's attestations lie beside an image: as one more manifest of the index, which names the image's manifest.
const (
	annotationReferenceType   = "vnd.docker.reference.type"
	annotationReferenceDigest = "vnd.docker.reference.digest"
	annotationPredicateType   = "in-toto.io/predicate-type"
	attestationManifest       = "attestation-manifest"
)

// Artifacts that sign an attestation manifest, best first.
var signatures = []string{
	"application/vnd.dev.sigstore.bundle.v0.3+json",
	"application/vnd.dev.cosign.artifact.sig.v1+json",
}

// maxChain bounds the bytes of a chain, which is told in one message.
const maxChain = 12 << 20

// Blob is content with what describes it.
type Blob struct {
	Descriptor ocispecs.Descriptor
	Data       []byte
}

// Chain is what vouches for an image on a platform. Digests are empty where there is no such thing.
type Chain struct {
	// Root is the index, ImageManifest and AttestationManifest are in it.
	Root, ImageManifest, AttestationManifest digest.Digest
	// Signatures refer to the attestation manifest; one at most, which holds the best kind of signature there is.
	Signatures []digest.Digest
	// Blobs are the documents above without the image's, what signatures consist of, and the attestations that were asked for.
	Blobs map[digest.Digest]Blob
}

// ResolveAttestations returns what vouches for ref on a platform, with the attestations of the named predicate types. It is nil
// for an image that is no index.
func (s *Source) ResolveAttestations(ctx context.Context, env source.Env, ref string, p ocispecs.Platform, m Mode, predicates []string) (*Chain, error) {
	q, err := newQuery(ref, p, m)
	if err != nil {
		return nil, err
	}
	f, err := s.find(ctx, env, q)
	if err != nil {
		return nil, err
	}
	if len(f.image.Path) == 0 {
		return nil, nil
	}
	ctx, err = s.images.Keeping(ctx)
	if err != nil {
		return nil, err
	}
	r := &chainReader{
		get:   s.documents(f, s.registry.Resolver(registry.ResolverOptions{Sessions: env.Sessions})),
		chain: &Chain{Root: f.image.Root.Digest, ImageManifest: f.image.Manifest.Digest, Blobs: map[digest.Digest]Blob{}},
	}
	if err := r.read(ctx, s, env.Sessions, f, predicates); err != nil {
		return nil, fmt.Errorf("attestations of image %s: %w", f.ref, err)
	}
	if f.local {
		return r.chain, nil
	}
	return r.chain, s.noteOrigin(ctx, f.ref, slices.Collect(maps.Keys(r.chain.Blobs)))
}

type chainReader struct {
	get   manifest.Getter
	chain *Chain
	size  int
}

func (r *chainReader) read(ctx context.Context, s *Source, sessions func() *session.Group, f *found, predicates []string) error {
	index := ocispecs.Index{}
	for _, d := range f.image.Path {
		// Of indexes in indexes the last is the one that knows the image.
		index = ocispecs.Index{}
		if err := r.addJSON(ctx, d, &index); err != nil {
			return err
		}
	}
	at := slices.IndexFunc(index.Manifests, func(d ocispecs.Descriptor) bool {
		return d.Annotations[annotationReferenceType] == attestationManifest &&
			d.Annotations[annotationReferenceDigest] == f.image.Manifest.Digest.String()
	})
	if at < 0 {
		return nil
	}
	d := index.Manifests[at]
	var m ocispecs.Manifest
	if err := r.addJSON(ctx, d, &m); err != nil {
		return err
	}
	r.chain.AttestationManifest = d.Digest
	for _, l := range m.Layers {
		if slices.Contains(predicates, l.Annotations[annotationPredicateType]) {
			if _, err := r.add(ctx, l); err != nil {
				return err
			}
		}
	}
	if f.local {
		return nil // what refers to a manifest only a registry knows
	}
	return r.addSignature(ctx, s, sessions, f.ref, d.Digest)
}

func (r *chainReader) addSignature(ctx context.Context, s *Source, sessions func() *session.Group, ref string, of digest.Digest) error {
	referrers, err := s.referrers(ctx, sessions, ref, of)
	if err != nil {
		return err
	}
	for _, kind := range signatures {
		at := slices.IndexFunc(referrers, func(d ocispecs.Descriptor) bool { return d.ArtifactType == kind })
		if at < 0 {
			continue
		}
		var m ocispecs.Manifest
		if err := r.addJSON(ctx, referrers[at], &m); err != nil {
			return err
		}
		r.chain.Signatures = []digest.Digest{referrers[at].Digest}
		for _, l := range m.Layers {
			if _, err := r.add(ctx, l); err != nil {
				return err
			}
		}
		return nil
	}
	return nil
}

// referrers asks the registry what refers to a manifest. One that cannot tell knows of nothing.
func (s *Source) referrers(ctx context.Context, sessions func() *session.Group, ref string, of digest.Digest) ([]ocispecs.Descriptor, error) {
	f, err := s.registry.Resolver(registry.ResolverOptions{Sessions: sessions}).Fetcher(ctx, ref)
	if err != nil {
		return nil, err
	}
	rf, ok := f.(remotes.ReferrersFetcher)
	if !ok {
		return nil, errors.New("the registry's client cannot ask for referrers")
	}
	list, err := rf.FetchReferrers(ctx, of)
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	return list, err
}

func (r *chainReader) add(ctx context.Context, d ocispecs.Descriptor) ([]byte, error) {
	if b, ok := r.chain.Blobs[d.Digest]; ok {
		return b.Data, nil
	}
	if err := d.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("%q: %w", d.Digest, err)
	}
	b, err := r.get(ctx, d)
	if err != nil {
		return nil, err
	}
	if r.size += len(b); r.size > maxChain {
		return nil, fmt.Errorf("more than the %d bytes allowed", maxChain)
	}
	r.chain.Blobs[d.Digest] = Blob{Descriptor: d, Data: b}
	return b, nil
}

func (r *chainReader) addJSON(ctx context.Context, d ocispecs.Descriptor, v any) error {
	b, err := r.add(ctx, d)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", d.Digest, err)
	}
	return nil
}
