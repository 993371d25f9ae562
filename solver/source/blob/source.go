package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/images"
	"github.com/slipwaybuild/slipway/solver/source"
	"github.com/slipwaybuild/slipway/solver/source/oci"
	"github.com/slipwaybuild/slipway/solver/source/onefile"
	"github.com/slipwaybuild/slipway/solver/source/registry"
)

// Options goes with [New]. All but Logger are required, and outlive the source.
type Options struct {
	Images   *images.Store
	Layers   *layers.Store
	Registry *registry.Registry
	// Root is a directory for downloads, owned by the source. Files in it have no name, so that a crash leaves none.
	Root string
	// Logger may be nil.
	Logger *slog.Logger
}

// Source serves both schemes. It is a [source.Source].
type Source struct{ o Options }

var _ source.Source = (*Source)(nil)

// New returns the source.
func New(o Options) (*Source, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(o.Root, 0o700); err != nil {
		return nil, fmt.Errorf("blob source: %w", err)
	}
	return &Source{o}, nil
}

// Schemes implements [source.Source].
func (s *Source) Schemes() []string { return []string{registryScheme, layoutScheme} }

// Pin understands a request, and sees that who asks may have the blob: it may be here since another client asked for it.
func (s *Source) Pin(ctx context.Context, env source.Env, r source.Request) (source.Pinned, error) {
	q, err := parse(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.Identifier, err)
	}
	if q.store != "" {
		err = oci.Check(ctx, env.Sessions(), q.store, q.digest)
	} else {
		err = s.o.Registry.Resolver(registry.ResolverOptions{Sessions: env.Sessions}).Admit(ctx, q.ref)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.Identifier, err)
	}
	return &pinned{s, q}, nil
}

type pinned struct {
	s *Source
	q *query
}

// Key implements [source.Pinned]. Where the blob comes from is not in it.
func (p *pinned) Key() solver.Parts {
	return solver.Parts{
		{Name: "source", Value: "blob"},
		{Name: "content", Value: p.q.digest.String()},
		{Name: "filename", Value: p.q.filename},
		{Name: "perm", Value: strconv.FormatUint(uint64(p.q.perm), 8)},
		{Name: "owner", Value: fmt.Sprintf("%d:%d", p.q.uid, p.q.gid)},
	}
}

// Name implements [source.Named]: the digest.
func (p *pinned) Name() string { return p.q.digest.String() }

// Close implements [source.Pinned]: a pin holds nothing.
func (p *pinned) Close() error { return nil }

// Fetch brings the blob, verified.
func (p *pinned) Fetch(ctx context.Context, env source.Env) (_ *layers.Ref, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", p.q.identifier, err)
		}
	}()
	f, err := os.CreateTemp(p.s.o.Root, "blob-*")
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // nobody reads it after this
	if err := os.Remove(f.Name()); err != nil {
		return nil, err
	}
	size, err := p.download(ctx, env, f)
	if err != nil {
		return nil, err
	}
	return onefile.Pack(ctx, p.s.o.Layers, onefile.File{
		Name: p.q.filename, Perm: p.q.perm, UID: p.q.uid, GID: p.q.gid, Size: size, ModTime: time.Unix(0, 0), Content: f,
	}, layers.Labels{Description: "blob " + p.q.identifier, Use: layers.UseRegular})
}

func (p *pinned) download(ctx context.Context, env source.Env, f *os.File) (size int64, err error) {
	rc, err := p.open(ctx, env)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	stop := context.AfterFunc(ctx, func() { _ = rc.Close() }) // wakes a read that does not look at the context
	defer stop()
	sum := p.q.digest.Algorithm().Digester()
	size, err = io.Copy(io.MultiWriter(f, sum.Hash()), rc)
	switch {
	case ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case err != nil:
		return 0, err
	case sum.Digest() != p.q.digest:
		return 0, &DigestError{Got: sum.Digest(), Want: p.q.digest}
	}
	return size, nil
}

// open opens the blob where it is: in our content store, with the client, or in the registry.
func (p *pinned) open(ctx context.Context, env source.Env) (io.ReadCloser, error) {
	d := ocispecs.Descriptor{Digest: p.q.digest, MediaType: "application/octet-stream"}
	ra, err := p.s.o.Images.Content().ReaderAt(ctx, d)
	switch {
	case err == nil:
		return struct {
			io.Reader
			io.Closer
		}{io.NewSectionReader(ra, 0, ra.Size()), ra}, nil
	case !errdefs.IsNotFound(err):
		return nil, err
	case p.q.store != "":
		return oci.Open(ctx, env.Sessions(), p.q.store, d)
	}
	r := p.s.o.Registry.Resolver(registry.ResolverOptions{Sessions: env.Sessions})
	found, err := r.Find(ctx, p.q.ref) // for its length, to go on where an interrupted download was
	if err != nil {
		return nil, err
	}
	f, err := r.Fetcher(ctx, p.q.ref)
	if err != nil {
		return nil, err
	}
	d.Size = found.Size
	return f.Fetch(ctx, d)
}

// DigestError is a blob that is not the one asked for.
type DigestError struct{ Got, Want digest.Digest }

func (e *DigestError) Error() string {
	return fmt.Sprintf("digest mismatch: %s (expected: %s)", e.Got, e.Want)
}
