// Package objects keeps caches in stores of named objects: blobs under their digests, and under each name a config that says by itself
// what the blobs are. The layout is BuildKit's, so a bucket's rules for old objects go on working.
package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/remotecache"
)

// Store is where objects are. All methods are safe for concurrent use. An object that is not there is errdefs.ErrNotFound.
type Store interface {
	// Has tells whether a blob is there. A store that forgets what is not used may take it for a use.
	Has(ctx context.Context, d digest.Digest) (bool, error)
	// Open opens a blob. The caller closes it.
	Open(ctx context.Context, d digest.Digest) (io.ReadCloser, error)
	// Put writes a blob of a size in bytes.
	Put(ctx context.Context, d digest.Digest, r io.ReaderAt, size int64) error
	// Config opens the config under a name. The caller closes it.
	Config(ctx context.Context, name string) (io.ReadCloser, error)
	// PutConfig replaces the config under a name.
	PutConfig(ctx context.Context, name string, data []byte) error
}

// Place is a cache under one or several names.
type Place struct {
	store    Store
	read     []string
	write    []string
	location string
	title    string
}

var _ remotecache.Target = (*Place)(nil)

// Options goes with [New].
type Options struct {
	Store Store
	// Read are the names that are read, and Write those that are written.
	Read, Write []string
	// Location is made by remotecache.NewLocation.
	Location string
	Title    string
}

// New returns the place. It does not go there.
func New(o Options) *Place {
	return &Place{store: o.Store, read: o.Read, write: o.Write, location: o.Location, title: o.Title}
}

// Location implements [remotecache.Place].
func (p *Place) Location() string { return p.location }

// Title implements [remotecache.Place].
func (p *Place) Title() string { return p.title }

// Load implements [remotecache.Place].
func (p *Place) Load(ctx context.Context) ([]*remotecache.Cache, error) {
	var list []*remotecache.Cache
	for _, name := range p.read {
		c, err := p.load(ctx, name)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the cache %s of %s: %w", name, p.title, err)
		}
		list = append(list, c)
	}
	return list, nil
}

func (p *Place) load(ctx context.Context, name string) (_ *remotecache.Cache, err error) {
	r, err := p.store.Config(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	data, err := io.ReadAll(io.LimitReader(r, remotecache.MaxConfig+1))
	if err != nil {
		return nil, err
	}
	c, err := remotecache.Parse(data, nil)
	if err != nil {
		return nil, &remotecache.FormatError{Err: err}
	}
	return c, nil
}

// Has implements [remotecache.Place].
func (p *Place) Has(ctx context.Context, d ocispecs.Descriptor) (bool, error) {
	there, err := p.store.Has(ctx, d.Digest)
	if err != nil {
		return false, fmt.Errorf("look for %s in %s: %w", d.Digest, p.title, err)
	}
	return there, nil
}

// Open implements [remotecache.Place].
func (p *Place) Open(ctx context.Context, d ocispecs.Descriptor) (io.ReadCloser, error) {
	r, err := p.store.Open(ctx, d.Digest)
	if err != nil {
		return nil, fmt.Errorf("read %s from %s: %w", d.Digest, p.title, err)
	}
	return r, nil
}

// Put implements [remotecache.Target].
func (p *Place) Put(ctx context.Context, d ocispecs.Descriptor, blob content.Provider, _ string) (err error) {
	ra, err := blob.ReaderAt(ctx, d)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ra.Close()) }()
	if err := p.store.Put(ctx, d.Digest, ra, d.Size); err != nil {
		return fmt.Errorf("write %s to %s: %w", d.Digest, p.title, err)
	}
	return nil
}

// Save implements [remotecache.Target]. There is no manifest that clients could be told of.
func (p *Place) Save(ctx context.Context, c *remotecache.Cache, note func(string) func()) (*ocispecs.Descriptor, error) {
	data, err := c.Marshal(true)
	if err != nil {
		return nil, err
	}
	for _, name := range p.write {
		if p.same(ctx, name, data) {
			continue
		}
		done := note("writing cache " + name)
		if err := p.store.PutConfig(ctx, name, data); err != nil {
			return nil, fmt.Errorf("error writing manifest %s to %s: %w", name, p.title, err)
		}
		done()
	}
	return nil, nil
}

// same tells whether a config is there already, byte for byte. That it cannot be read means that it has to be written.
func (p *Place) same(ctx context.Context, name string, data []byte) bool {
	r, err := p.store.Config(ctx, name)
	if err != nil {
		return false
	}
	there, err := io.ReadAll(io.LimitReader(r, int64(len(data))+1))
	return errors.Join(err, r.Close()) == nil && bytes.Equal(there, data)
}

// Stale tells whether an object was last written so long ago that it should be written again, where things that are not are removed.
func Stale(written *time.Time, after time.Duration) bool {
	return written != nil && time.Since(*written) > after
}
