package compression

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Labels of compressed blobs in the content store.
const (
	labelUncompressed = "containerd.io/uncompressed"
	labelMadeFrom     = "slipway.compressed" // see Spec.key
)

// Compress makes a compressed blob in store, or finds the one made before, and returns its digest and size, and the annotations that a
// manifest has for it, see [LabelDiffID]. open gives the
// uncompressed tar whose digest is diffID, and ends with its context. The lease in the context, if there is one, keeps the
// blob. What runs at the same time for the same layer is done once. An interrupted attempt leaves nothing.
func Compress(ctx context.Context, store content.Store, s Spec, diffID digest.Digest, open func(context.Context) (io.ReadCloser, error)) (ocispecs.Descriptor, error) {
	m := maker{store: store, spec: s, diffID: diffID}
	d, ok, err := m.find(ctx)
	if err == nil && !ok {
		d, err = m.make(ctx, open)
	}
	if err != nil {
		return ocispecs.Descriptor{}, fmt.Errorf("compress layer %s with %s: %w", diffID, s.Type, err)
	}
	return d, nil
}

// maker makes one blob.
type maker struct {
	store  content.Store
	spec   Spec
	diffID digest.Digest
}

// find looks for a blob that was made before, and takes it under the context's lease.
func (m maker) find(ctx context.Context) (d ocispecs.Descriptor, ok bool, err error) {
	err = m.store.Walk(ctx, func(i content.Info) error {
		d = ocispecs.Descriptor{Digest: i.Digest, Size: i.Size, Annotations: m.annotations(i.Labels)}
		return nil
	}, fmt.Sprintf("labels.%q==%q", labelMadeFrom, m.spec.key(m.diffID)))
	if err != nil {
		return d, false, fmt.Errorf("look for what was made before: %w", err)
	}
	if d.Digest == "" {
		return d, false, nil
	}
	ok, err = m.lease(ctx, d)
	return d, ok, err
}

// lease takes a blob under the context's lease; false if it was collected meanwhile.
func (m maker) lease(ctx context.Context, d ocispecs.Descriptor) (bool, error) {
	// Asking to write what is there is how containerd's store leases it.
	ref := "lease-" + d.Digest.String()
	w, err := content.OpenWriter(ctx, m.store, content.WithRef(ref), content.WithDescriptor(d))
	if errdefs.IsAlreadyExists(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("lease %s: %w", d.Digest, err)
	}
	return false, m.giveUp(ctx, ref, w)
}

// make compresses. Only one holds the writer of a key at a time; others wait for it, and find what was made.
func (m maker) make(ctx context.Context, open func(context.Context) (io.ReadCloser, error)) (d ocispecs.Descriptor, err error) {
	ref := "compress-" + m.spec.key(m.diffID)
	w, err := content.OpenWriter(ctx, m.store, content.WithRef(ref))
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx) // it says for whom it waited
	}
	if err != nil {
		return d, err
	}
	if d, ok, err := m.find(ctx); err != nil || ok {
		return d, errors.Join(err, m.giveUp(ctx, ref, w))
	}
	size, toc, err := m.write(ctx, w, open)
	if err != nil {
		return d, errors.Join(err, m.giveUp(ctx, ref, w))
	}
	d = ocispecs.Descriptor{Digest: w.Digest(), Size: size}
	if toc != "" {
		return m.commitStargz(ctx, ref, w, d, toc)
	}
	labels := map[string]string{labelUncompressed: m.diffID.String(), labelMadeFrom: m.spec.key(m.diffID)}
	err = w.Commit(ctx, d.Size, d.Digest, content.WithLabels(labels))
	switch {
	case errdefs.IsAlreadyExists(err):
		// Someone else brought the same bytes; from now on they are found.
		info := content.Info{Digest: d.Digest, Labels: labels}
		if _, err = m.store.Update(ctx, info, "labels."+labelUncompressed, "labels."+labelMadeFrom); err != nil {
			err = fmt.Errorf("label %s: %w", d.Digest, err)
		}
		if err == nil {
			_, err = m.lease(ctx, d)
		}
		return d, errors.Join(err, m.giveUp(ctx, ref, w))
	case err != nil:
		return d, errors.Join(err, m.giveUp(ctx, ref, w))
	}
	return d, w.Close()
}

// write compresses into w and returns the size, and the digest of the table of contents if there is one.
func (m maker) write(ctx context.Context, w content.Writer, open func(context.Context) (io.ReadCloser, error)) (_ int64, toc digest.Digest, err error) {
	// What a crash interrupted is begun anew: half a stream cannot be continued.
	if err := w.Truncate(0); err != nil {
		return 0, "", err
	}
	r, err := open(ctx)
	if err != nil {
		return 0, "", err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	out := &sink{w: w}
	z, err := m.spec.writer(out)
	if err != nil {
		return 0, "", err
	}
	_, err = io.Copy(writerOnly{z}, until{r, out})
	// Closing it ends its goroutines, and only without an error is that sure.
	closeErr := z.Close()
	size, writeErr := out.result()
	switch {
	case writeErr != nil:
		return 0, "", writeErr
	case err != nil:
		return 0, "", err
	}
	if s, ok := z.(*stargz); ok {
		toc = s.toc
	}
	return size, toc, closeErr
}

// giveUp removes what was written so far. It does so while the writer is held, so that it does not hit the next one's.
func (m maker) giveUp(ctx context.Context, ref string, w content.Writer) error {
	err := m.store.Abort(context.WithoutCancel(ctx), ref)
	_ = w.Close() // its files are gone
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// writerOnly hides a compressor's ReadFrom, which keeps an error of what it reads and then does not end in order.
type writerOnly struct{ io.Writer }

// sink counts what is written. It keeps the first error to itself: compressors that meet one return while they still write.
// Their goroutines write one at a time, and another one asks.
type sink struct {
	w io.Writer

	mu  sync.Mutex
	n   int64
	err error
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		var n int
		n, s.err = s.w.Write(p)
		s.n += int64(n)
	}
	return len(p), nil
}

func (s *sink) result() (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n, s.err
}

// until reads until the sink has failed.
type until struct {
	r   io.Reader
	out *sink
}

func (u until) Read(p []byte) (int, error) {
	if _, err := u.out.result(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}
