package daemon

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver/remotecache"
	"github.com/slipwaybuild/slipway/solver/remotecache/azblob"
	"github.com/slipwaybuild/slipway/solver/remotecache/gha"
	"github.com/slipwaybuild/slipway/solver/remotecache/manifests"
	"github.com/slipwaybuild/slipway/solver/remotecache/s3"
	"github.com/slipwaybuild/slipway/solver/source/registry"
)

// cachePlace opens where a cache is kept, from the attributes that a client gave, with the access of some sessions. It need not go
// there.
type cachePlace func(ctx context.Context, g *session.Group, attrs map[string]string) (remotecache.Target, error)

// caches knows the types of caches.
type caches struct {
	table    remotecache.Table
	exporter *remotecache.Exporter
	imports  map[string]cachePlace
	exports  map[string]cachePlace
	titles   map[string]string // of the step that exports
}

// typeInline is the cache in the config of the image that is exported.
const typeInline = "inline"

func (e *Engine) openCaches(userAgent string) {
	client := &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}
	e.opened("connections to caches", func() error { client.CloseIdleConnections(); return nil })
	actions := func(_ context.Context, _ *session.Group, attrs map[string]string) (remotecache.Target, error) {
		return gha.New(attrs, client, userAgent)
	}
	buckets := s3.NewOpener()
	e.caches = &caches{
		exporter: remotecache.NewExporter(e.layers),
		imports: map[string]cachePlace{
			"registry": e.registryCache, "local": importDirectory, "s3": bucket(buckets, false), "azblob": azure(client, false), "gha": actions,
		},
		exports: map[string]cachePlace{
			"registry": e.registryCache, "local": exportDirectory, "s3": bucket(buckets, true), "azblob": azure(client, true), "gha": actions,
		},
		titles: map[string]string{
			"registry": "exporting cache to registry", "local": "exporting cache to client directory", "s3": "exporting cache to Amazon S3",
			"azblob": "exporting cache to Azure Blob Storage", "gha": "exporting to GitHub Actions Cache",
		},
	}
}

func bucket(o *s3.Opener, write bool) cachePlace {
	return func(ctx context.Context, _ *session.Group, attrs map[string]string) (remotecache.Target, error) {
		return o.Open(ctx, attrs, write)
	}
}

func azure(client *http.Client, write bool) cachePlace {
	return func(ctx context.Context, _ *session.Group, attrs map[string]string) (remotecache.Target, error) {
		return azblob.New(ctx, attrs, client, write)
	}
}

func (e *Engine) registryCache(_ context.Context, g *session.Group, attrs map[string]string) (remotecache.Target, error) {
	insecure, err := cacheBool(attrs, "registry.insecure", false)
	if err != nil {
		return nil, err
	}
	form, err := manifests.ParseForm(attrs)
	if err != nil {
		return nil, err
	}
	access := e.registry.Resolver(registry.ResolverOptions{Sessions: func() *session.Group { return g }, Insecure: insecure})
	return manifests.NewRegistry(manifests.RegistryOptions{Access: access, Ref: attrs["ref"], Form: form, Insecure: insecure})
}

func importDirectory(_ context.Context, g *session.Group, attrs map[string]string) (remotecache.Target, error) {
	switch {
	case attrs["digest"] == "":
		return nil, fmt.Errorf("local cache importer requires explicit digest")
	case attrs["src"] == "":
		return nil, fmt.Errorf("local cache importer requires src")
	}
	d, err := digest.Parse(attrs["digest"])
	if err != nil {
		return nil, fmt.Errorf("digest %q: %w", attrs["digest"], err)
	}
	return manifests.NewDirectory(g, attrs["src"], d, manifests.Form{}), nil
}

func exportDirectory(_ context.Context, g *session.Group, attrs map[string]string) (remotecache.Target, error) {
	if attrs["dest"] == "" {
		return nil, fmt.Errorf("local cache exporter requires dest")
	}
	form, err := manifests.ParseForm(attrs)
	if err != nil {
		return nil, err
	}
	// Only the client knows what its directory holds under the name; ours says so.
	var root digest.Digest
	if text := attrs["digest"]; text != "" {
		if root, err = digest.Parse(text); err != nil {
			return nil, fmt.Errorf("digest %q: %w", text, err)
		}
	}
	return manifests.NewDirectory(g, attrs["dest"], root, form), nil
}

func cacheBool(attrs map[string]string, key string, fallback bool) (bool, error) {
	v, ok := attrs[key]
	if !ok {
		return fallback, nil
	}
	b, err := strconv.ParseBool(v)
	if err != nil {
		return false, fmt.Errorf("failed to parse %s: %w", key, err)
	}
	return b, nil
}
