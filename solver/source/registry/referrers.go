package registry

import (
	"context"

	"github.com/containerd/containerd/v2/core/remotes"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Referrers lists what names d, a manifest of the repository of ref, as its subject: as the registry's own list has it or, of
// registries that keep none, the tag that stands in for it (OCI Distribution 1.1, "Referrers tag schema"). No list is an empty one.
func (r *Resolver) Referrers(ctx context.Context, ref string, d digest.Digest) ([]ocispecs.Descriptor, error) {
	f, err := r.docker().Fetcher(r.quiet(ctx), ref)
	if err != nil {
		return nil, wrap("list referrers in", ref, err)
	}
	lister, ok := f.(remotes.ReferrersFetcher)
	if !ok {
		return nil, nil
	}
	list, err := lister.FetchReferrers(r.quiet(ctx), d)
	return list, wrap("list referrers in", ref, err)
}
