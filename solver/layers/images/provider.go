package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/layers"
)

// Provider reads content by digest: from Content, or, when the digest is the diffID of a layer that is local, from the layer
// store.
func (s *Store) Provider() content.Provider { return provider{s} }

type provider struct{ s *Store }

func (p provider) ReaderAt(ctx context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	ra, err := p.s.content.ReaderAt(ctx, d)
	if !errdefs.IsNotFound(err) {
		return ra, err
	}
	missing := err
	r, err := p.s.pin(ctx, d.Digest)
	if errors.Is(err, layers.ErrNotFound) {
		return nil, missing
	}
	if err != nil {
		return nil, fmt.Errorf("read layer %s: %w", d.Digest, err)
	}
	tar, size, err := p.s.layers.Tar(ctx, r, 0)
	if err != nil {
		err = errors.Join(err, r.Release())
		if errors.Is(err, layers.ErrNotLocal) {
			return nil, missing
		}
		return nil, fmt.Errorf("read layer %s: %w", d.Digest, err)
	}
	return &layerReader{ref: r, tar: tar, size: size}, nil
}

// layerReader reads the tar of a layer, which it holds while it is open.
type layerReader struct {
	ref  *layers.Ref
	size int64

	mu  sync.Mutex // guards the position of tar
	tar io.ReadSeekCloser
}

func (r *layerReader) Size() int64 { return r.size }

func (r *layerReader) ReadAt(p []byte, off int64) (int, error) {
	if ra, ok := r.tar.(io.ReaderAt); ok {
		return ra.ReadAt(p, off)
	}
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	if off >= r.size {
		return 0, io.EOF
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.tar.Seek(off, io.SeekStart); err != nil {
		return 0, err
	}
	n, err := io.ReadFull(r.tar, p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

func (r *layerReader) Close() error { return errors.Join(r.tar.Close(), r.ref.Release()) }
