package manifest

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Opener opens content at its origin. What it gives is not verified.
type Opener func(context.Context, ocispecs.Descriptor) (io.ReadCloser, error)

// DigestError is returned for bytes that are not what their digest says.
type DigestError struct{ Want, Got digest.Digest }

func (e *DigestError) Error() string {
	return fmt.Sprintf("wrong content: wanted %s, got %s", e.Want, e.Got)
}

// Through returns a Getter that reads from a content store, and what is not there from its origin, checking size and digest and
// putting it in the store. A nil open is no origin.
func Through(store content.Store, open Opener) Getter {
	return func(ctx context.Context, d ocispecs.Descriptor) ([]byte, error) {
		if d.Size > MaxSize {
			return nil, fmt.Errorf("%s has %d bytes, more than the %d allowed", d.Digest, d.Size, MaxSize)
		}
		b, err := stored(ctx, store, d)
		if err == nil || !errdefs.IsNotFound(err) || open == nil {
			return b, err
		}
		return bring(ctx, store, open, d)
	}
}

// From is Through, but reads from the origin also what the store has, unless known says that it came from there.
func From(store content.Store, open Opener, known func(content.Info) bool) Getter {
	through := Through(store, open)
	return func(ctx context.Context, d ocispecs.Descriptor) ([]byte, error) {
		info, err := store.Info(ctx, d.Digest)
		if err != nil && !errdefs.IsNotFound(err) {
			return nil, err
		}
		if err != nil || known(info) || d.Size > MaxSize {
			return through(ctx, d)
		}
		return bring(ctx, store, open, d)
	}
}

func bring(ctx context.Context, store content.Store, open Opener, d ocispecs.Descriptor) ([]byte, error) {
	b, err := fetch(ctx, open, d)
	if err != nil {
		return nil, err
	}
	d.Size = int64(len(b))
	err = content.WriteBlob(ctx, store, "metadata-"+d.Digest.String(), bytes.NewReader(b), d)
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return nil, fmt.Errorf("store %s: %w", d.Digest, err)
	}
	return b, nil
}

func stored(ctx context.Context, store content.Store, d ocispecs.Descriptor) ([]byte, error) {
	ra, err := store.ReaderAt(ctx, d)
	if err != nil {
		return nil, err
	}
	defer func() { _ = ra.Close() }() // it was only read
	if ra.Size() > MaxSize {
		return nil, fmt.Errorf("%s has %d bytes, more than the %d allowed", d.Digest, ra.Size(), MaxSize)
	}
	b := make([]byte, ra.Size())
	if _, err := io.ReadFull(io.NewSectionReader(ra, 0, ra.Size()), b); err != nil {
		return nil, fmt.Errorf("read %s: %w", d.Digest, err)
	}
	return b, nil
}

func fetch(ctx context.Context, open Opener, d ocispecs.Descriptor) ([]byte, error) {
	rc, err := open(ctx, d)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rc.Close() }() // it was only read
	b, err := io.ReadAll(io.LimitReader(rc, MaxSize+1))
	if err != nil {
		return nil, err
	}
	if len(b) > MaxSize {
		return nil, fmt.Errorf("%s has more than the %d bytes allowed", d.Digest, MaxSize)
	}
	if got := d.Digest.Algorithm().FromBytes(b); got != d.Digest {
		return nil, &DigestError{Want: d.Digest, Got: got}
	}
	return b, nil
}

// Digests lists the documents of an image, for keeping them.
func (i *Image) Digests() []digest.Digest {
	out := []digest.Digest{i.Manifest.Digest, i.Config.Digest}
	for _, d := range i.Path {
		out = append(out, d.Digest)
	}
	return out
}
