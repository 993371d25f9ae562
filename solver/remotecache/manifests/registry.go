package manifests

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/remotecache"
	"github.com/slipwaybuild/slipway/solver/source/registry"
)

// Access reaches registries with the credentials of some sessions. [registry.Resolver] is one.
type Access interface {
	remotes.Resolver
	Push(ctx context.Context, ref string, from content.Provider, d ocispecs.Descriptor, sent func(int64)) error
}

// Registry is a cache under a name in a registry.
type Registry struct {
	access   Access
	ref      string // in full, with a tag or a digest
	repo     string
	form     Form
	insecure bool
}

var _ remotecache.Target = (*Registry)(nil)

// RegistryOptions goes with [NewRegistry].
type RegistryOptions struct {
	Access Access
	// Ref is the name as people write it.
	Ref string
	// Form is for writing.
	Form Form
	// Insecure says that Access takes any certificate: others who fetch the blobs need to be told.
	Insecure bool
}

// NewRegistry returns the place of a name. It does not go there.
func NewRegistry(o RegistryOptions) (*Registry, error) {
	if o.Ref == "" {
		return nil, errors.New("missing ref")
	}
	named, err := reference.ParseNormalizedNamed(o.Ref)
	if err != nil {
		return nil, fmt.Errorf("ref %q: %w", o.Ref, err)
	}
	return &Registry{
		access: o.Access, form: o.Form, insecure: o.Insecure,
		ref: reference.TagNameOnly(named).String(), repo: reference.TrimNamed(named).String(),
	}, nil
}

// Location implements [remotecache.Place].
func (r *Registry) Location() string {
	if r.insecure {
		return remotecache.NewLocation("insecure-registry", r.ref)
	}
	return r.ref
}

// Title implements [remotecache.Place].
func (r *Registry) Title() string { return r.ref }

// Load implements [remotecache.Place].
func (r *Registry) Load(ctx context.Context) ([]*remotecache.Cache, error) {
	_, root, err := r.access.Resolve(ctx, r.ref)
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	caches, err := read(ctx, r.Open, root)
	if errdefs.IsNotFound(err) {
		// Half evicted is as good as nothing.
		return nil, &remotecache.FormatError{Err: err}
	}
	return caches, err
}

// Has implements [remotecache.Place].
func (r *Registry) Has(ctx context.Context, d ocispecs.Descriptor) (bool, error) {
	_, _, err := r.access.Resolve(ctx, r.repo+"@"+d.Digest.String())
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// Open implements [remotecache.Place].
func (r *Registry) Open(ctx context.Context, d ocispecs.Descriptor) (io.ReadCloser, error) {
	f, err := r.access.Fetcher(ctx, r.ref)
	if err != nil {
		return nil, err
	}
	return f.Fetch(ctx, d)
}

// Put implements [remotecache.Target].
func (r *Registry) Put(ctx context.Context, d ocispecs.Descriptor, blob content.Provider, from string) error {
	ref := r.repo + "@" + d.Digest.String()
	if from != "" {
		d = registry.MountFrom(d, r.ref, from)
	}
	return r.access.Push(ctx, ref, blob, d, nil)
}

// Save implements [remotecache.Target].
func (r *Registry) Save(ctx context.Context, c *remotecache.Cache, note func(string) func()) (*ocispecs.Descriptor, error) {
	config, root, err := r.form.write(c)
	if err != nil {
		return nil, err
	}
	done := note("writing config " + config.desc.Digest.String())
	if err := r.access.Push(ctx, r.repo+"@"+config.desc.Digest.String(), config, config.desc, nil); err != nil {
		return nil, fmt.Errorf("error writing config blob: %w", err)
	}
	done()
	done = note(r.form.title(root.desc.Digest))
	if err := r.access.Push(ctx, r.ref, root, root.desc, nil); err != nil {
		return nil, fmt.Errorf("error writing manifest blob: %w", err)
	}
	done()
	return &root.desc, nil
}
