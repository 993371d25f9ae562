package history

import (
	"context"

	"github.com/containerd/containerd/v2/core/content"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Content reads the blobs of records by digest. What is open stays readable when its record is forgotten.
func (s *Store) Content() *Content { return &Content{s.blobs.store} }

// Content is a content store that can only be read.
type Content struct{ store content.Store }

// ReaderAt opens a blob; the caller closes it.
func (c *Content) ReaderAt(ctx context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	return c.store.ReaderAt(ctx, d)
}

// Info describes a blob.
func (c *Content) Info(ctx context.Context, d digest.Digest) (content.Info, error) {
	return c.store.Info(ctx, d)
}

// Walk tells of every blob.
func (c *Content) Walk(ctx context.Context, fn content.WalkFunc, filters ...string) error {
	return c.store.Walk(ctx, fn, filters...)
}
