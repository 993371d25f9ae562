package images

import (
	"context"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// namespacedContent puts the namespace on every context, so that callers need not know of namespaces, and makes leases when they are
// needed.
type namespacedContent struct {
	super content.Store
	ns    string
}

var _ content.Store = namespacedContent{}

func (c namespacedContent) in(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, c.ns)
}

func (c namespacedContent) Info(ctx context.Context, d digest.Digest) (content.Info, error) {
	return c.super.Info(c.in(ctx), d)
}

func (c namespacedContent) Update(ctx context.Context, i content.Info, fields ...string) (content.Info, error) {
	return c.super.Update(c.in(ctx), i, fields...)
}

func (c namespacedContent) Walk(ctx context.Context, f content.WalkFunc, filters ...string) error {
	return c.super.Walk(c.in(ctx), f, filters...)
}

func (c namespacedContent) Delete(ctx context.Context, d digest.Digest) error {
	return c.super.Delete(c.in(ctx), d)
}

func (c namespacedContent) ReaderAt(ctx context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	return c.super.ReaderAt(c.in(ctx), d)
}

func (c namespacedContent) Status(ctx context.Context, ref string) (content.Status, error) {
	return c.super.Status(c.in(ctx), ref)
}

func (c namespacedContent) ListStatuses(ctx context.Context, filters ...string) ([]content.Status, error) {
	return c.super.ListStatuses(c.in(ctx), filters...)
}

func (c namespacedContent) Abort(ctx context.Context, ref string) error {
	return c.super.Abort(c.in(ctx), ref)
}

func (c namespacedContent) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	if err := takeLease(ctx); err != nil {
		return nil, err
	}
	w, err := c.super.Writer(c.in(ctx), opts...)
	if err != nil {
		return nil, err
	}
	return namespacedWriter{w, c}, nil
}

type namespacedWriter struct {
	content.Writer
	store namespacedContent
}

func (w namespacedWriter) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...content.Opt) error {
	return w.Writer.Commit(w.store.in(ctx), size, expected, opts...)
}

// namespacedImages does the same for names.
type namespacedImages struct {
	super images.Store
	ns    string
}

var _ images.Store = namespacedImages{}

func (i namespacedImages) in(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, i.ns)
}

func (i namespacedImages) Get(ctx context.Context, name string) (images.Image, error) {
	return i.super.Get(i.in(ctx), name)
}

func (i namespacedImages) List(ctx context.Context, filters ...string) ([]images.Image, error) {
	return i.super.List(i.in(ctx), filters...)
}

func (i namespacedImages) Create(ctx context.Context, image images.Image) (images.Image, error) {
	return i.super.Create(i.in(ctx), image)
}

func (i namespacedImages) Update(ctx context.Context, image images.Image, fields ...string) (images.Image, error) {
	return i.super.Update(i.in(ctx), image, fields...)
}

func (i namespacedImages) Delete(ctx context.Context, name string, opts ...images.DeleteOpt) error {
	return i.super.Delete(i.in(ctx), name, opts...)
}

// namespacedLeases does the same for leases.
type namespacedLeases struct {
	super leases.Manager
	ns    string
}

var _ leases.Manager = namespacedLeases{}

func (l namespacedLeases) in(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, l.ns)
}

func (l namespacedLeases) Create(ctx context.Context, opts ...leases.Opt) (leases.Lease, error) {
	return l.super.Create(l.in(ctx), opts...)
}

func (l namespacedLeases) Delete(ctx context.Context, lease leases.Lease, opts ...leases.DeleteOpt) error {
	return l.super.Delete(l.in(ctx), lease, opts...)
}

func (l namespacedLeases) List(ctx context.Context, filters ...string) ([]leases.Lease, error) {
	return l.super.List(l.in(ctx), filters...)
}

func (l namespacedLeases) AddResource(ctx context.Context, lease leases.Lease, r leases.Resource) error {
	return l.super.AddResource(l.in(ctx), lease, r)
}

func (l namespacedLeases) DeleteResource(ctx context.Context, lease leases.Lease, r leases.Resource) error {
	return l.super.DeleteResource(l.in(ctx), lease, r)
}

func (l namespacedLeases) ListResources(ctx context.Context, lease leases.Lease) ([]leases.Resource, error) {
	return l.super.ListResources(l.in(ctx), lease)
}
