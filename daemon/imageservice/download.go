package imageservice

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// downloads is a piece of work that brings blobs into the content store.
type downloads struct {
	store content.Store
	// plain has no lease: what an interrupted download left is not swept away with one, and is gone on with next time, within a day.
	plain context.Context
	// leased keeps what is complete.
	leased context.Context
}

// has takes content that is there under the lease.
func (w downloads) has(d digest.Digest) (bool, error) {
	if _, err := w.store.Info(w.leased, d); errdefs.IsNotFound(err) {
		return false, nil
	}
	// Asking to write what is there is how containerd's store leases it.
	ref := "lease-" + d.String()
	out, err := w.store.Writer(w.leased, content.WithRef(ref), content.WithDescriptor(ocispecs.Descriptor{Digest: d}))
	switch {
	case errdefs.IsAlreadyExists(err):
		return true, nil
	case errdefs.IsUnavailable(err):
		return false, nil // someone else asks just now
	case err != nil:
		return false, fmt.Errorf("look for %s: %w", d, err)
	}
	err = w.store.Abort(w.leased, ref)
	_ = out.Close() // nothing was written
	if errdefs.IsNotFound(err) {
		err = nil
	}
	return false, err
}

// bring downloads one blob unless it is there, going on where an earlier attempt ended. told learns how many bytes are here.
func (w downloads) bring(ctx context.Context, from remotes.Fetcher, d ocispecs.Descriptor, told func(int64)) error {
	ref := "download-" + d.Digest.String()
	out, err := content.OpenWriter(ctx, w.store, content.WithRef(ref), content.WithDescriptor(d))
	if errdefs.IsAlreadyExists(err) {
		return w.take(d.Digest)
	}
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }() // what was written is the store's
	r, err := from.Fetch(ctx, d)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }() // it was only read
	if err = content.Copy(w.leased, out, counted(ctx, r, told), d.Size, d.Digest); err == nil {
		return nil
	}
	if errdefs.IsFailedPrecondition(err) {
		// It is not what it should be, and going on from there would never make it so.
		err = errors.Join(fmt.Errorf("%s is not what its digest and size say: %w", d.Digest, err), w.store.Abort(w.plain, ref))
	}
	return err
}

// take takes under the lease what someone else brought.
func (w downloads) take(d digest.Digest) error {
	ok, err := w.has(d)
	if err == nil && !ok {
		err = fmt.Errorf("content %s was removed while it was asked for: %w", d, errdefs.ErrUnavailable)
	}
	return err
}

// counted makes r tell how far it was read, and end with ctx. It can be moved if r can.
func counted(ctx context.Context, r io.Reader, told func(int64)) io.Reader {
	c := countingReader{ctx: ctx, r: r, told: told}
	if s, ok := r.(io.Seeker); ok {
		return &countingSeeker{c, s}
	}
	return &c
}

type countingReader struct {
	ctx  context.Context // of the download
	r    io.Reader
	n    int64
	told func(int64)
}

func (c *countingReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	n, err := c.r.Read(p)
	if c.n += int64(n); c.told != nil {
		c.told(c.n)
	}
	return n, err
}

type countingSeeker struct {
	countingReader
	s io.Seeker
}

func (c *countingSeeker) Seek(offset int64, whence int) (int64, error) {
	n, err := c.s.Seek(offset, whence)
	if err == nil {
		c.n = n
	}
	return n, err
}
