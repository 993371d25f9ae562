package history

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// blobs is a content store whose blobs are counted: each goes with the last record that needs it. A reader that has one open
// reads on.
type blobs struct {
	store content.Store

	mu   sync.Mutex
	refs map[digest.Digest]int
}

func openBlobs(dir string) (*blobs, error) {
	// An empty store cannot be walked without it.
	if err := os.MkdirAll(filepath.Join(dir, "blobs"), 0o700); err != nil {
		return nil, err
	}
	store, err := local.NewStore(dir)
	if err != nil {
		return nil, err
	}
	return &blobs{store: store, refs: map[digest.Digest]int{}}, nil
}

// write stores what fill writes and counts one use of it, which is the caller's to drop.
func (b *blobs) write(ctx context.Context, mediaType string, fill func(io.Writer) error) (_ ocispecs.Descriptor, err error) {
	w, err := b.store.Writer(ctx, content.WithRef("history-"+rand.Text()))
	if err != nil {
		return ocispecs.Descriptor{}, fmt.Errorf("write blob: %w", err)
	}
	committed := false
	defer func() {
		if !committed {
			st, stErr := w.Status()
			err = errors.Join(err, w.Close())
			if stErr == nil {
				_ = b.store.Abort(ctx, st.Ref)
			}
		}
	}()
	counted := &countingWriter{w: w}
	if err := fill(counted); err != nil {
		return ocispecs.Descriptor{}, err
	}
	desc := ocispecs.Descriptor{MediaType: mediaType, Digest: w.Digest(), Size: counted.n}
	// Counted first, so that the end of another record with the same blob does not take it away again.
	b.add(desc.Digest)
	if err := w.Commit(ctx, desc.Size, desc.Digest); err != nil && !errdefs.IsAlreadyExists(err) {
		return ocispecs.Descriptor{}, errors.Join(fmt.Errorf("write blob %s: %w", desc.Digest, err), b.drop(ctx, desc.Digest))
	}
	committed = true
	return desc, w.Close()
}

// writeBytes stores data.
func (b *blobs) writeBytes(ctx context.Context, mediaType string, data []byte) (ocispecs.Descriptor, error) {
	return b.write(ctx, mediaType, func(w io.Writer) error {
		_, err := io.Copy(w, bytes.NewReader(data))
		return err
	})
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// add counts a use of each.
func (b *blobs) add(list ...digest.Digest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range list {
		b.refs[d]++
	}
}

// drop ends a use of each, and removes what has no other.
func (b *blobs) drop(ctx context.Context, list ...digest.Digest) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for _, d := range list {
		if b.refs[d]--; b.refs[d] > 0 {
			continue
		}
		delete(b.refs, d)
		if err := b.store.Delete(ctx, d); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("remove blob %s: %w", d, err))
		}
	}
	return errors.Join(errs...)
}

// sweep removes what a crash left: blobs that nobody counts, and writes that never ended. Nothing else may run.
func (b *blobs) sweep(ctx context.Context) error {
	var orphans []digest.Digest
	err := b.store.Walk(ctx, func(i content.Info) error {
		if b.refs[i.Digest] == 0 {
			orphans = append(orphans, i.Digest)
		}
		return nil
	})
	errs := []error{err}
	for _, d := range orphans {
		errs = append(errs, b.store.Delete(ctx, d))
	}
	unfinished, err := b.store.ListStatuses(ctx)
	errs = append(errs, err)
	for _, st := range unfinished {
		errs = append(errs, b.store.Abort(ctx, st.Ref))
	}
	return errors.Join(errs...)
}

func digests(list []string) []digest.Digest {
	out := make([]digest.Digest, 0, len(list))
	for _, d := range list {
		out = append(out, digest.Digest(d))
	}
	return out
}
