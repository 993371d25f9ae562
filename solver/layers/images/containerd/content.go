package containerd

import (
	"context"
	"errors"

	"github.com/containerd/containerd/v2/core/content"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// contentStore is containerd's content store. Calls that are no streams are repeated by the connection.
type contentStore struct {
	super content.Store
	retry retry
	alive func(context.Context) error
}

var _ content.Store = contentStore{}

func (c contentStore) Info(ctx context.Context, d digest.Digest) (content.Info, error) {
	return c.super.Info(ctx, d)
}

func (c contentStore) Update(ctx context.Context, i content.Info, fields ...string) (content.Info, error) {
	return c.super.Update(ctx, i, fields...)
}

func (c contentStore) Delete(ctx context.Context, d digest.Digest) error {
	return c.super.Delete(ctx, d)
}

func (c contentStore) Status(ctx context.Context, ref string) (content.Status, error) {
	return c.super.Status(ctx, ref)
}

func (c contentStore) ListStatuses(ctx context.Context, filters ...string) ([]content.Status, error) {
	return c.super.ListStatuses(ctx, filters...)
}

func (c contentStore) Abort(ctx context.Context, ref string) error { return c.super.Abort(ctx, ref) }

// Walk tells f of everything once the list is complete: half a list cannot be continued.
func (c contentStore) Walk(ctx context.Context, f content.WalkFunc, filters ...string) error {
	var all []content.Info
	err := c.retry.native(ctx, func() error {
		all = all[:0]
		return c.super.Walk(ctx, func(i content.Info) error {
			all = append(all, i)
			return nil
		}, filters...)
	})
	if err != nil {
		return err
	}
	for _, i := range all {
		if err := f(i); err != nil {
			return err
		}
	}
	return nil
}

func (c contentStore) ReaderAt(ctx context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	r, err := c.super.ReaderAt(ctx, d)
	if err != nil {
		return nil, err
	}
	return &reader{ctx: ctx, super: r, retry: c.retry}, nil
}

// Writer opens a writer that outlives a restart of containerd.
func (c contentStore) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	w := &writer{ctx: ctx, store: c, opts: opts}
	if err := w.open(); err != nil {
		return nil, err
	}
	st, err := w.stream.Status()
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	w.offset = st.Offset
	return w, nil
}

// answers waits for a sign of life for as long as calls are repeated. The error is not one that containerd's packages wait for.
func (c contentStore) answers(ctx context.Context) error {
	err := c.alive(ctx)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return &LostError{Address: c.retry.address, Err: err}
}
