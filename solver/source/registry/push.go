package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Push brings one piece of content to the repository of ref, from the beginning as often as the connection breaks, within reason.
// What is there already is not sent. Manifests must come after what they refer to. sent, which may be nil, is told how many bytes
// of the current attempt have gone.
func (r *Resolver) Push(ctx context.Context, ref string, from content.Provider, d ocispecs.Descriptor, sent func(int64)) error {
	for attempt := 1; ; attempt++ {
		err := r.pushOnce(ctx, ref, from, d, sent)
		if err == nil || errdefs.IsAlreadyExists(err) {
			return nil
		}
		if attempt >= maxAttempts || ctx.Err() != nil || !broken(err) {
			return wrap("push "+d.Digest.String()+" to", ref, err)
		}
		r.reg.log.DebugContext(ctx, "upload broke off", "digest", d.Digest, "ref", redact(ref), "error", reason(err))
		if err := sleep(ctx, max(r.reg.backoff<<(attempt-1), askedFor(err))); err != nil {
			return wrap("push", ref, err)
		}
	}
}

// askedFor is how long the host wants to be left alone.
func askedFor(err error) time.Duration {
	var s *StatusError
	if errors.As(err, &s) {
		return s.RetryAfter
	}
	return 0
}

// broken tells whether an upload is worth starting afresh.
func broken(err error) bool {
	var u *UnreachableError
	var s *StatusError
	return errors.As(err, &u) && mayPass(u) || errors.As(err, &s) && s.RetryAfter <= maxRetryAfter || errors.Is(err, content.ErrReset) || errors.Is(err, io.ErrClosedPipe)
}

func (r *Resolver) pushOnce(ctx context.Context, ref string, from content.Provider, d ocispecs.Descriptor, sent func(int64)) (err error) {
	// Cancelling ends the upload's goroutine when the copy fails halfway.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p, err := r.docker().Pusher(r.quiet(ctx), ref)
	if err != nil {
		return err
	}
	w, err := p.Push(r.quiet(ctx), d)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := w.Close(); err == nil && closeErr != nil && !errors.Is(closeErr, io.ErrClosedPipe) {
			err = closeErr
		}
	}()
	ra, err := from.ReaderAt(ctx, d)
	if err != nil {
		return fmt.Errorf("read %s: %w", d.Digest, err)
	}
	defer func() { _ = ra.Close() }() // it was only read
	var src io.Reader = io.NewSectionReader(ra, 0, d.Size)
	if sent != nil {
		src = &countingReader{src.(io.ReadSeeker), 0, sent}
	}
	return content.Copy(ctx, w, src, d.Size, d.Digest)
}

// countingReader tells how far it was read. It can be rewound, as an upload may have to begin again.
type countingReader struct {
	io.ReadSeeker
	n    int64
	told func(int64)
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.ReadSeeker.Read(p)
	c.n += int64(n)
	c.told(c.n)
	return n, err
}

func (c *countingReader) Seek(offset int64, whence int) (int64, error) {
	n, err := c.ReadSeeker.Seek(offset, whence)
	if err == nil {
		c.n = n
	}
	return n, err
}

// pusher gives containerd's errors our form.
type pusher struct {
	r    *Resolver
	ref  string
	next remotes.Pusher
}

func (p *pusher) Push(ctx context.Context, d ocispecs.Descriptor) (content.Writer, error) {
	w, err := p.next.Push(p.r.quiet(ctx), d)
	if errdefs.IsAlreadyExists(err) {
		return nil, err
	}
	if err != nil {
		return nil, wrap("push "+d.Digest.String()+" to", p.ref, err)
	}
	return &pushWriter{Writer: w, p: p, what: d}, nil
}

type pushWriter struct {
	content.Writer
	p    *pusher
	what ocispecs.Descriptor
}

func (w *pushWriter) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	return n, w.wrap(err)
}

func (w *pushWriter) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...content.Opt) error {
	return w.wrap(w.Writer.Commit(ctx, size, expected, opts...))
}

// wrap lets through what content.Copy acts upon.
func (w *pushWriter) wrap(err error) error {
	if errors.Is(err, content.ErrReset) || errdefs.IsAlreadyExists(err) {
		return err
	}
	return wrap("push "+w.what.Digest.String()+" to", w.p.ref, err)
}

// MountFrom returns d marked so that pushing it to the repository of ref tries to mount it from the repository of from first. Where
// the two are not on the same host it returns d as it is.
func MountFrom(d ocispecs.Descriptor, ref, from string) ocispecs.Descriptor {
	to, err := reference.Parse(ref)
	if err != nil {
		return d
	}
	src, err := reference.Parse(from)
	if err != nil || src.Hostname() != to.Hostname() || src.Locator == to.Locator {
		return d
	}
	u, err := url.Parse("dummy://" + src.Locator)
	if err != nil {
		return d
	}
	// containerd's pusher reads this annotation, and does not send it. Its key has the host without the port.
	d.Annotations = maps.Clone(d.Annotations)
	if d.Annotations == nil {
		d.Annotations = map[string]string{}
	}
	d.Annotations["containerd.io/distribution.source."+u.Hostname()] = strings.TrimPrefix(u.Path, "/")
	return d
}
