// Package http is the source of single files behind a URL.
//
// Pinning fetches the file, unless its checksum is given: then the key is known without any network, and the file is fetched when
// someone needs it. What was fetched is remembered with the *validators* the server gave (ETag, Last-Modified), and the next pin
// asks the server only whether it still holds. The host buildkit-session is no host: it names an upload in a client's session.
package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/keylock"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/source"
)

// Options goes with [New].
type Options struct {
	// Store takes the layers, and its index the memory of responses. Required.
	Store *layers.Store
	// Sessions is where session groups come from.
	Sessions *session.Manager
	// Root is a directory for downloads in the making, owned by the source. Required.
	Root string
	// Limit is how long a file may be in bytes; 0 is unlimited.
	Limit int64
	// Transport makes the requests; nil is http.DefaultTransport.
	Transport http.RoundTripper
	// UserAgent is what requests say they come from, unless they name one; "" is "slipway".
	UserAgent string
	// Logger may be nil.
	Logger *slog.Logger
}

// maxRedirects is how many redirects are followed.
const maxRedirects = 10

// Source serves http:// and https://. It is a [source.Source].
type Source struct {
	o       Options
	client  *http.Client
	mem     *memory
	uploads uploads
	locks   keylock.Locks[string]
}

var _ source.Source = (*Source)(nil)

// New returns the source.
func New(o Options) (*Source, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Transport == nil {
		o.Transport = http.DefaultTransport
	}
	if o.UserAgent == "" {
		o.UserAgent = "slipway"
	}
	if err := emptyDir(o.Root); err != nil {
		return nil, fmt.Errorf("http source: %w", err)
	}
	mem, err := openMemory(o.Store.DB())
	if err != nil {
		return nil, fmt.Errorf("http source: %w", err)
	}
	redirect := func(_ *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return fmt.Errorf("stopped after %d redirects", maxRedirects)
		}
		return nil
	}
	return &Source{o: o, client: &http.Client{Transport: o.Transport, CheckRedirect: redirect}, mem: mem}, nil
}

// emptyDir makes dir and removes downloads that a crash left there.
func emptyDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	left, err := filepath.Glob(filepath.Join(dir, downloadPattern))
	if err != nil {
		return err
	}
	for _, p := range left {
		if err := os.Remove(p); err != nil {
			return err
		}
	}
	return nil
}

// Schemes implements [source.Source].
func (s *Source) Schemes() []string { return []string{"http", "https"} }

// Pin implements [source.Source].
func (s *Source) Pin(ctx context.Context, env source.Env, r source.Request) (source.Pinned, error) {
	q, err := parse(r)
	if err != nil {
		return nil, fmt.Errorf("http source: %w", err)
	}
	p := &pinned{s: s, q: q, file: file{Digest: q.checksum, Filename: q.staticName()}}
	if q.checksum != "" && q.signature == nil {
		return p, nil
	}
	if err := p.get(ctx, env); err != nil {
		return nil, err
	}
	return p, nil
}

// Metadata is what a URL gave.
type Metadata struct {
	Digest   digest.Digest
	Filename string
	// LastModified is zero if the server did not say.
	LastModified time.Time
	// Sum is the digest that a [Sum] asked for; "" if none was.
	Sum digest.Digest
}

// maxSuffix bounds [Sum.Suffix], in bytes.
const maxSuffix = 4 << 10

// Sum asks for the digest of the file followed by other bytes, as signatures are made over.
type Sum struct {
	Algorithm digest.Algorithm
	Suffix    []byte
}

// Resolve tells what a request would give, fetching it if its checksum is not given, or if another is wanted. sum may be nil.
func (s *Source) Resolve(ctx context.Context, env source.Env, r source.Request, sum *Sum) (m *Metadata, err error) {
	if sum != nil && (len(sum.Suffix) > maxSuffix || !sum.Algorithm.Available()) {
		return nil, fmt.Errorf("http source: checksum %q with a suffix of %d bytes: the limit is %d", sum.Algorithm, len(sum.Suffix), maxSuffix)
	}
	pin, err := s.Pin(ctx, env, r)
	if err != nil {
		return nil, err
	}
	p := pin.(*pinned)
	defer func() { err = errors.Join(err, p.Close()) }()
	m = &Metadata{Digest: p.file.Digest, Filename: p.file.Filename, LastModified: p.file.LastModified}
	if sum == nil {
		return m, nil
	}
	if m.Sum, err = p.sum(ctx, env, sum); err != nil {
		return nil, fmt.Errorf("checksum of %s: %w", p.q.shown, err)
	}
	return m, nil
}

func (p *pinned) sum(ctx context.Context, env source.Env, s *Sum) (digest.Digest, error) {
	ref, err := p.Fetch(ctx, env)
	if err != nil {
		return "", err
	}
	d := s.Algorithm.Digester()
	err = p.read(ctx, func(r io.Reader) error {
		if _, err := io.Copy(d.Hash(), r); err != nil {
			return err
		}
		_, err := d.Hash().Write(s.Suffix)
		return err
	})
	return d.Digest(), errors.Join(err, ref.Release())
}

// file is one response.
type file struct {
	Digest       digest.Digest // SHA-256, or that of the checksum asked for
	Filename     string
	LastModified time.Time // zero if unknown
}

// pinned is a request with its answer.
type pinned struct {
	s    *Source
	q    *query
	file file

	refLock keylock.Locks[string] // of "": guards ref
	ref     *layers.Ref           // nil until it is fetched
}

// Key implements [source.Pinned]. The URL is not in it: the same file is the same input wherever it comes from.
func (p *pinned) Key() solver.Parts {
	modified := ""
	if !p.file.LastModified.IsZero() {
		modified = p.file.LastModified.UTC().Format(http.TimeFormat)
	}
	return solver.Parts{
		{Name: "source", Value: "http"},
		{Name: "filename", Value: p.file.Filename},
		{Name: "perm", Value: strconv.FormatUint(uint64(p.q.perm), 8)},
		{Name: "owner", Value: fmt.Sprintf("%d:%d", p.q.uid, p.q.gid)},
		{Name: "content", Value: p.file.Digest.String()},
		{Name: "modified", Value: modified},
	}
}

// Name implements [source.Named]: the digest of the file.
func (p *pinned) Name() string { return p.file.Digest.String() }

// Fetch implements [source.Pinned].
func (p *pinned) Fetch(ctx context.Context, env source.Env) (*layers.Ref, error) {
	unlock, err := p.refLock.Lock(ctx, "")
	if err != nil {
		return nil, err
	}
	defer unlock()
	if p.ref == nil {
		if err := p.get(ctx, env); err != nil {
			return nil, err
		}
	}
	return p.ref.Clone(), nil
}

// Close implements [source.Pinned].
func (p *pinned) Close() error {
	if p.ref == nil {
		return nil
	}
	return p.ref.Release()
}

// get brings the file: from memory if the server says that it holds, or from the network. One at a time of each URL, so that
// those who come together share the bytes.
func (p *pinned) get(ctx context.Context, env source.Env) error {
	q := p.q
	unlock, err := p.s.locks.Lock(ctx, q.key())
	if err != nil {
		return err
	}
	defer unlock()
	if q.upload() {
		err = p.getUpload(ctx, env)
	} else {
		err = p.getURL(ctx, env)
	}
	if err == nil {
		err = p.verify(ctx)
	}
	if err != nil && p.ref != nil {
		err = errors.Join(err, p.ref.Release())
		p.ref = nil
	}
	return err
}

// verify checks what came against what was asked for.
func (p *pinned) verify(ctx context.Context) error {
	if p.q.signature == nil {
		return nil
	}
	if err := p.verifySignature(ctx); err != nil {
		return fmt.Errorf("verify signature of %s: %w", p.q.shown, err)
	}
	return nil
}
