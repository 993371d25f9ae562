// Package gha keeps caches in the cache service of GitHub Actions.
package gha

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/remotecache"
	"github.com/slipwaybuild/slipway/solver/remotecache/objects"
	actionscache "github.com/tonistiigi/go-actions-cache"
)

const (
	// version is part of all keys, which are those of BuildKit.
	version = "1"
	blobs   = "buildkit-blob-" + version + "-"
	// takeover is how long a name may be reserved by somebody who does not finish, before it is passed over.
	takeover = 15 * time.Second
)

// config are the attributes, with the names and defaults of BuildKit's.
type config struct {
	scope, token, url string
	v2                bool
	timeout           time.Duration
	repository        string
	ghToken           string
}

func parse(attrs map[string]string) (c config, err error) {
	c = config{scope: "buildkit", timeout: 10 * time.Minute, repository: attrs["repository"], ghToken: attrs["ghtoken"]}
	if v, ok := attrs["scope"]; ok {
		c.scope = v
	}
	var ok bool
	if c.token, ok = attrs["token"]; !ok {
		return c, errors.New("token not set for github actions cache")
	}
	api := 0
	if v, ok := attrs["version"]; ok {
		if api, err = strconv.Atoi(v); err != nil {
			return c, fmt.Errorf("failed to parse api version %q, expected positive integer", v)
		}
	}
	if v, ok := attrs["url_v2"]; ok && api != 1 {
		c.url, api = v, 2
	}
	if v, ok := attrs["url"]; ok && c.url == "" {
		c.url = v
	}
	if c.url == "" {
		return c, errors.New("url not set for github actions cache")
	}
	// Old clients give only one address.
	c.v2 = api > 1 || api == 0 && strings.Contains(c.url, "results-receiver.actions.githubusercontent.com")
	if v, ok := attrs["timeout"]; ok {
		if c.timeout, err = time.ParseDuration(v); err != nil {
			return c, fmt.Errorf("failed to parse timeout for github actions cache: %w", err)
		}
	}
	return c, nil
}

// New returns the place that the attributes name: every scope that the token may read is read, that of the branch is written.
func New(attrs map[string]string, client *http.Client, userAgent string) (*objects.Place, error) {
	c, err := parse(attrs)
	if err != nil {
		return nil, err
	}
	opts := actionscache.Opt{Client: client, Timeout: c.timeout, UserAgent: userAgent}
	cache, err := actionscache.New(c.token, c.url, c.v2, opts)
	if err != nil {
		return nil, fmt.Errorf("github actions cache: %w", err)
	}
	o := objects.Options{Store: &store{config: c, cache: cache, opts: opts}, Title: "gha:" + c.scope}
	for _, s := range cache.Scopes() {
		o.Read = append(o.Read, c.index(s.Scope))
		if s.Permission&actionscache.PermissionWrite != 0 {
			o.Write = []string{c.index(s.Scope)}
		}
	}
	host := ""
	if u, err := url.Parse(c.url); err == nil {
		host = u.Host
	}
	o.Location = remotecache.NewLocation("gha", host+"/"+c.repository)
	return objects.New(o), nil
}

// index names the config of one of GitHub's scopes, such as a branch.
func (c config) index(scope string) string {
	return "index-" + c.scope + "-" + version + "-" + digest.FromString(scope).Encoded()[:8]
}

type store struct {
	config
	cache *actionscache.Cache
	opts  actionscache.Opt

	list sync.Once
	keys map[string]struct{} // of all blobs; nil if they have to be asked for one by one
}

var _ objects.Store = (*store)(nil)

func key(d digest.Digest) string { return blobs + d.String() }

// Has implements [objects.Store].
func (s *store) Has(ctx context.Context, d digest.Digest) (bool, error) {
	s.list.Do(func() { s.keys = s.allKeys(ctx) })
	if _, ok := s.keys[key(d)]; ok {
		return true, nil
	}
	e, err := s.load(ctx, key(d))
	return e != nil, err
}

// allKeys asks GitHub's API for all blobs at once, if the client may. Asking for each costs a request of a limited number.
func (s *store) allKeys(ctx context.Context) map[string]struct{} {
	if s.repository == "" || s.ghToken == "" {
		return nil
	}
	api, err := actionscache.NewRestAPI(s.repository, s.ghToken, s.opts)
	if err != nil {
		return nil
	}
	keys, err := s.cache.AllKeys(ctx, api, blobs)
	if err != nil {
		return nil
	}
	return keys
}

// load finds an entry of exactly that key: the service also finds longer ones.
func (s *store) load(ctx context.Context, key string) (*actionscache.Entry, error) {
	e, err := s.cache.Load(ctx, key)
	if err != nil || e == nil || e.Key != key {
		return nil, err
	}
	return e, nil
}

// Open implements [objects.Store].
func (s *store) Open(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	e, err := s.load(ctx, key(d))
	if err != nil {
		return nil, err
	}
	return download(ctx, e, key(d))
}

// Config implements [objects.Store]. A name stands for the newest of its numbered entries.
func (s *store) Config(ctx context.Context, name string) (io.ReadCloser, error) {
	e, err := s.cache.Load(ctx, name+"#")
	if err != nil {
		return nil, err
	}
	return download(ctx, e, name)
}

func download(ctx context.Context, e *actionscache.Entry, what string) (io.ReadCloser, error) {
	if e == nil {
		return nil, fmt.Errorf("cache entry %s: %w", what, errdefs.ErrNotFound)
	}
	ra := e.Download(ctx)
	// It does not know its size; readers go on to its end.
	return struct {
		io.Reader
		io.Closer
	}{&sequential{ra: ra}, ra}, nil
}

// sequential reads an io.ReaderAt of unknown size from its beginning.
type sequential struct {
	ra  io.ReaderAt
	off int64
}

func (s *sequential) Read(p []byte) (int, error) {
	n, err := s.ra.ReadAt(p, s.off)
	s.off += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// Put implements [objects.Store].
func (s *store) Put(ctx context.Context, d digest.Digest, r io.ReaderAt, size int64) error {
	err := s.cache.Save(ctx, key(d), blob{io.NewSectionReader(r, 0, size)})
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	return err
}

// PutConfig implements [objects.Store].
func (s *store) PutConfig(ctx context.Context, name string, data []byte) error {
	return s.cache.SaveMutable(ctx, name, takeover, func(*actionscache.Entry) (actionscache.Blob, error) {
		return blob{io.NewSectionReader(bytes.NewReader(data), 0, int64(len(data)))}, nil
	})
}

// blob is content as the service's client takes it.
type blob struct{ *io.SectionReader }

func (blob) Close() error { return nil }
