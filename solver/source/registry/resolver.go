package registry

import (
	"context"
	"net/http"
	"sync"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/session"
)

// ResolverOptions goes with [Registry.Resolver].
type ResolverOptions struct {
	// Sessions returns the sessions whose credentials may be used now; nil, or a nil group, is anonymous. It is asked again for
	// every operation.
	Sessions func() *session.Group
	// Insecure takes any certificate, and plain http, from the host of the reference, as the exporters' registry.insecure does.
	Insecure bool
}

// Resolver returns the registry as those sessions may see it. It holds nothing and need not be closed.
func (r *Registry) Resolver(o ResolverOptions) *Resolver {
	return &Resolver{reg: r, o: o, known: map[string]*credential{}}
}

// Resolver pulls and pushes for some sessions. It is safe for concurrent use. Its errors are of type [*Error].
type Resolver struct {
	reg *Registry
	o   ResolverOptions

	mu     sync.Mutex             // guards what follows
	known  map[string]*credential // by host and session
	shown  string                 // the identity of the credential that went with the last request that had one
	showed bool                   // whether any request had one
}

var _ remotes.Resolver = (*Resolver)(nil)

// Resolve asks what a reference means now, or checks that a digest is there.
func (r *Resolver) Resolve(ctx context.Context, ref string) (string, ocispecs.Descriptor, error) {
	name, desc, err := r.docker().Resolve(r.quiet(ctx), ref)
	return name, desc, wrap("resolve", ref, err)
}

// Find checks that what ref names by digest is there, be it a manifest or a blob of any length, and tells its length.
func (r *Resolver) Find(ctx context.Context, ref string) (ocispecs.Descriptor, error) {
	_, desc, err := r.Resolve(ctx, ref)
	if !errdefs.IsNotFound(err) {
		return desc, err
	}
	// A blob that is longer than manifests may be is not found like that.
	spec, perr := reference.Parse(ref)
	if perr != nil || spec.Digest() == "" {
		return desc, err
	}
	f, ferr := r.docker().Fetcher(r.quiet(ctx), ref)
	if ferr != nil {
		return desc, err
	}
	by, ok := f.(remotes.FetcherByDigest)
	if !ok {
		return desc, err
	}
	body, found, ferr := by.FetchByDigest(r.quiet(ctx), spec.Digest()) // the bytes are not asked for before they are read
	if ferr != nil {
		return desc, err
	}
	return found, body.Close()
}

// Fetcher pulls from the repository of ref. What it opens goes on where it was after an interruption; bytes are not verified. URLs
// in descriptors are followed only for layers that must not be distributed, and only when the repository does not have them.
func (r *Resolver) Fetcher(ctx context.Context, ref string) (remotes.Fetcher, error) {
	f, err := r.docker().Fetcher(r.quiet(ctx), ref)
	if err != nil {
		return nil, wrap("fetch", ref, err)
	}
	return &fetcher{r: r, ref: ref, next: f}, nil
}

// Pusher pushes to the repository of ref; a manifest goes to the tag, if ref has one. What is there already is
// errdefs.ErrAlreadyExists. A blob that [MountFrom] marked is mounted where the host allows it. A writer whose upload was interrupted is of no more use; see
// [Resolver.Push].
func (r *Resolver) Pusher(ctx context.Context, ref string) (remotes.Pusher, error) {
	p, err := r.docker().Pusher(r.quiet(ctx), ref)
	if err != nil {
		return nil, wrap("push", ref, err)
	}
	return &pusher{r: r, ref: ref, next: p}, nil
}

// docker returns containerd's resolver with our hosts and authorizers. It is made for each operation, as its upload tracker would
// otherwise remember failed uploads.
func (r *Resolver) docker() remotes.Resolver {
	return docker.NewResolver(docker.ResolverOptions{
		Hosts: func(namespace string) ([]docker.RegistryHost, error) {
			return r.reg.registryHosts(namespace, r.o, func(e *endpoint) docker.Authorizer { return newAuthorizer(r, e) })
		},
		Headers: http.Header{"User-Agent": {r.reg.userAgent}},
	})
}

func (r *Resolver) quiet(ctx context.Context) context.Context {
	return log.WithLogger(ctx, r.reg.quiet)
}
