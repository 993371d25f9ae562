package registry

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/layers"
)

const (
	// maxStalls is how often in a row a download may break off without a byte having come.
	maxStalls = 5
	// maxShort is how often in a row an answer may end, as answers do, before all has come.
	maxShort = 1
)

// givenUpError is the end of a download that was taken up again in vain.
type givenUpError struct{ error }

func (e *givenUpError) Unwrap() []error { return []error{e.error, layers.ErrGivenUp} }

type fetcher struct {
	r    *Resolver
	ref  string
	next remotes.Fetcher
}

// Fetch opens the content; what the host refuses, it refuses here and not at the first Read. What it opens is an io.Seeker, to go on
// where an earlier download ended.
func (f *fetcher) Fetch(ctx context.Context, d ocispecs.Descriptor) (io.ReadCloser, error) {
	plain := d
	plain.URLs = nil
	rc, err := f.open(ctx, d, func(ctx context.Context, offset int64) (io.ReadCloser, error) {
		rc, err := f.next.Fetch(f.r.quiet(ctx), plain)
		if err != nil || offset == 0 {
			return rc, err
		}
		if _, err := rc.(io.Seeker).Seek(offset, io.SeekStart); err != nil {
			return nil, errors.Join(err, rc.Close())
		}
		return rc, nil
	})
	if errdefs.IsNotFound(err) && images.IsNonDistributable(d.MediaType) {
		for _, u := range d.URLs {
			at := func(ctx context.Context, offset int64) (io.ReadCloser, error) { return f.get(ctx, u, offset) }
			if rc, err := f.open(ctx, d, at); err == nil {
				return rc, nil
			}
		}
	}
	return rc, err
}

// FetchReferrers lists the manifests that refer to another. Registries that do not know the question are asked for the tag that
// stands for its answer.
func (f *fetcher) FetchReferrers(ctx context.Context, d digest.Digest, opts ...remotes.FetchReferrersOpt) ([]ocispecs.Descriptor, error) {
	r, ok := f.next.(remotes.ReferrersFetcher)
	if !ok {
		return nil, errdefs.ErrNotImplemented
	}
	list, err := r.FetchReferrers(f.r.quiet(ctx), d, opts...)
	return list, wrap("list what refers to "+d.String()+" at", f.ref, err)
}

func (f *fetcher) open(ctx context.Context, d ocispecs.Descriptor, at openFunc) (io.ReadCloser, error) {
	b := &blobReader{ctx: ctx, at: at, size: d.Size, f: f, what: d, idle: f.r.reg.idle}
	buf := bufio.NewReaderSize(b, 64<<10)
	if _, err := buf.Peek(1); err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(err, b.Close())
	}
	return &opened{Reader: buf, blob: b}, nil
}

// opened is a blob that is being read.
type opened struct {
	*bufio.Reader
	blob *blobReader
}

func (o *opened) Close() error { return o.blob.Close() }

// Seek moves to an offset from the beginning, in a new connection.
func (o *opened) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekStart || offset < 0 || offset > o.blob.size {
		return 0, fmt.Errorf("move to byte %d of %s: %w", offset, o.blob.what.Digest, errdefs.ErrInvalidArgument)
	}
	if offset == o.blob.offset-int64(o.Buffered()) {
		return offset, nil
	}
	if err := o.blob.Close(); err != nil {
		return 0, err
	}
	o.blob.offset, o.blob.stalls = offset, 0
	o.Reset(o.blob)
	return offset, nil
}

// get reads a URL that a manifest names, as anybody may.
func (f *fetcher) get(ctx context.Context, raw string, offset int64) (io.ReadCloser, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("%q is not a web address", redact(raw))
	}
	// One endpoint for all such addresses, as an image may name any number of hosts.
	e, err := f.r.reg.endpoint(endpointKey{scheme: "https"})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, raw, nil)
	if err != nil {
		return nil, err
	}
	req.Header = f.r.reg.header()
	want := http.StatusOK
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
		want = http.StatusPartialContent
	}
	resp, err := e.registry.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != want {
		return nil, newStatusError(resp)
	}
	return resp.Body, nil
}

// openFunc opens a blob at an offset. What it opens ends with ctx.
type openFunc func(ctx context.Context, offset int64) (io.ReadCloser, error)

// blobReader reads a blob to its end through as many connections as it takes.
type blobReader struct {
	ctx    context.Context
	at     openFunc
	idle   time.Duration // how long a connection may give nothing
	size   int64
	offset int64
	stalls int
	f      *fetcher
	what   ocispecs.Descriptor

	// The connection in use.
	rc     io.ReadCloser
	cancel context.CancelFunc
	timer  *time.Timer
}

func (b *blobReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n, err := b.read(p)
		b.offset += int64(n)
		if n > 0 {
			b.stalls = 0
			return n, nil
		}
		if err == nil {
			continue
		}
		if errors.Is(err, io.EOF) && b.offset >= b.size {
			return 0, io.EOF
		}
		if err := b.recover(err); err != nil {
			return 0, wrap("fetch "+b.what.Digest.String()+" from", b.f.ref, err)
		}
	}
}

func (b *blobReader) read(p []byte) (int, error) {
	if b.rc == nil {
		ctx, cancel := context.WithCancel(b.ctx)
		b.cancel, b.timer = cancel, time.AfterFunc(b.idle, cancel)
		rc, err := b.at(ctx, b.offset)
		if err != nil {
			return 0, b.stalled(err)
		}
		b.rc = rc
	}
	b.timer.Reset(b.idle)
	n, err := b.rc.Read(p)
	// Whoever reads may take his time between two reads.
	if !b.timer.Stop() {
		err = b.stalled(cmp.Or(err, errHungUp))
	}
	return n, err
}

// stalled names the error for which our own timer is to blame.
func (b *blobReader) stalled(err error) error {
	if !b.timer.Stop() && b.ctx.Err() == nil {
		return errHungUp
	}
	return err
}

// recover decides whether to go on after err, and waits before.
func (b *blobReader) recover(err error) error {
	_ = b.Close() // it is broken already
	if b.ctx.Err() != nil {
		return b.ctx.Err()
	}
	limit := maxStalls
	if errors.Is(err, io.EOF) {
		// The answer was whole: this is all the host has, or a proxy that forgot the rest, which once more tells.
		limit = maxShort
	}
	if b.stalls++; b.stalls > limit || !interrupted(err) {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("the connection ended after %d of %d bytes", b.offset, b.size)
		}
		return &givenUpError{err}
	}
	b.f.r.reg.log.DebugContext(b.ctx, "download broke off", "digest", b.what.Digest, "ref", redact(b.f.ref), "offset", b.offset, "error", reason(err))
	return sleep(b.ctx, b.f.r.reg.backoff<<(b.stalls-1))
}

// interrupted tells whether a download may be taken up again after err. What the retrier gave up on before the first byte came is
// not tried further.
func interrupted(err error) bool {
	var s *StatusError
	var u *UnreachableError
	if errors.As(err, &s) || errors.As(err, &u) {
		return false
	}
	return isConnError(err) || errors.Is(err, errHungUp)
}

// Close gives up the connection in use.
func (b *blobReader) Close() (err error) {
	if b.rc != nil {
		err = b.rc.Close()
		b.rc = nil
	}
	if b.cancel != nil {
		b.timer.Stop()
		b.cancel()
	}
	return err
}
