package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/exporter/compression"
	"github.com/slipwaybuild/slipway/exporter/manifest"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/progress"
	"github.com/slipwaybuild/slipway/solver/remotecache"
	"golang.org/x/sync/errgroup"
)

// CacheExport is one cache that a build is to write for other machines.
type CacheExport struct {
	Type  string
	Attrs map[string]string
}

// cacheExport is one cache to write, understood.
type cacheExport struct {
	number      int // in the request
	title       string
	target      remotecache.Target
	options     manifest.Options
	max         bool
	merge       bool
	ignoreError bool
	later       bool     // the answer does not wait for it
	mounts      []string // ids of cache mounts that go with it
	allMounts   bool     // all that the build's steps have
}

// cacheExports are all that a build is to write.
type cacheExports struct {
	inline bool
	list   []cacheExport
}

func (c cacheExports) none() bool { return !c.inline && len(c.list) == 0 }

// newCacheExports checks what is asked for. Errors are the request's.
func (e *Engine) newCacheExports(ctx context.Context, g *session.Group, r Request) (x cacheExports, err error) {
	// Clients that know BuildKit only by the Dockerfile frontend ask by a build argument.
	if on, err := strconv.ParseBool(r.FrontendAttrs["build-arg:BUILDKIT_INLINE_CACHE"]); err == nil {
		x.inline = on
	}
	seen := map[string]bool{}
	for i, o := range r.CacheExports {
		if o.Type == typeInline {
			x.inline = true
			continue
		}
		key := exportKey(o)
		if seen[key] {
			return x, fmt.Errorf("%w: duplicate cache exports [%s]", ErrInvalidRequest, o.Type)
		}
		seen[key] = true
		open, ok := e.caches.exports[o.Type]
		if !ok {
			return x, fmt.Errorf("%w: unknown cache exporter: %q", ErrInvalidRequest, o.Type)
		}
		one, err := parseCacheExport(o)
		if err == nil {
			one.number, one.title = i, e.caches.titles[o.Type]
			one.target, err = open(ctx, g, o.Attrs)
		}
		if err != nil {
			return x, fmt.Errorf("%w: failed to configure %s cache exporter: %w", ErrInvalidRequest, o.Type, err)
		}
		x.list = append(x.list, one)
	}
	return x, nil
}

// exportKey tells one export from another.
func exportKey(o CacheExport) string {
	if o.Type == "registry" && o.Attrs["ref"] != "" {
		return o.Attrs["ref"]
	}
	text, err := json.Marshal(o)
	if err != nil {
		panic(err) // strings only
	}
	return string(text)
}

// parseCacheExport reads the attributes that all types have. As ever, a mode that is neither min nor max is min.
func parseCacheExport(o CacheExport) (x cacheExport, err error) {
	x.max = o.Attrs["mode"] == "max"
	if b, err := strconv.ParseBool(o.Attrs["ignore-error"]); err == nil {
		x.ignoreError = b
	}
	x.mounts, x.allMounts = parseMounts(o.Attrs["mounts"])
	if x.merge, err = cacheBool(o.Attrs, "merge", true); err != nil {
		return x, err
	}
	wait, err := cacheBool(o.Attrs, "wait", true)
	if err != nil {
		return x, err
	}
	x.later = !wait && o.Type != "local" // the client has its directory only while it waits
	x.options = manifest.Options{OCI: true, KeepRemote: true}
	if x.options.Force, err = cacheBool(o.Attrs, "force-compression", false); err != nil {
		return x, err
	}
	x.options.Compression, err = compression.Parse(o.Attrs["compression"], o.Attrs["compression-level"], compression.Gzip)
	return x, err
}

// split tells the exports that the answer waits for from the others.
func (c cacheExports) split() (now, later []cacheExport) {
	for _, x := range c.list {
		if x.later {
			later = append(later, x)
		} else {
			now = append(now, x)
		}
	}
	return now, later
}

// exportCaches writes all caches at once and returns what clients are told.
func (b *build) exportCaches(ctx context.Context, list []cacheExport, out made) (map[string]string, error) {
	answers := make([]map[string]string, len(list))
	eg, egCtx := errgroup.WithContext(ctx)
	for i, x := range list {
		eg.Go(func() error {
			err := b.step(egCtx, x.title, func(ctx context.Context, p progress.Writer) (err error) {
				answers[i], err = b.exportCache(ctx, x, out, p)
				return err
			})
			if err != nil && x.ignoreError && ctx.Err() == nil {
				b.engine.log.Warn("export cache", "ref", b.ref, "to", x.target.Title(), "error", err)
				return nil
			}
			return exportError(x.title, err)
		})
	}
	err := eg.Wait()
	merged := map[string]string{}
	for i, told := range answers {
		maps.Copy(merged, told)
		for k, v := range told {
			merged[numbered(k, list[i].number)] = v
		}
	}
	return merged, err
}

// numbered is the key of one of several exports: "cache.0.manifest".
func numbered(key string, n int) string {
	rest, _ := strings.CutPrefix(key, "cache.")
	return fmt.Sprintf("cache.%d.%s", n, rest)
}

func (b *build) exportCache(ctx context.Context, x cacheExport, out made, p progress.Writer) (_ map[string]string, err error) {
	ctx, done, err := b.engine.images.WithLease(ctx)
	if err != nil {
		return nil, fmt.Errorf("take lease for cache: %w", err)
	}
	defer func() { err = errors.Join(err, done(context.WithoutCancel(ctx))) }()
	assembler := &manifest.Assembler{Layers: b.engine.layers, Content: b.engine.images.Content()}
	fetcher := b.engine.fetcher(b.groupNow)
	return b.engine.caches.exporter.Run(ctx, remotecache.Export{
		Target: x.target, Max: x.max, Merge: x.merge, Force: x.options.Force, Mounts: b.mountSources(x),
		Pack: func(ctx context.Context, one *layers.Ref) (remotecache.Packed, error) {
			blob, info, err := assembler.Layer(ctx, one, fetcher, x.options)
			packed := remotecache.Packed{
				Layer: remotecache.Layer{Descriptor: blob.Desc, DiffID: info.DiffID, CreatedAt: info.CreatedAt, Description: info.Labels.Description},
				Blob:  blob.Provider(),
			}
			if blob.Remote != nil {
				packed.From = blob.Remote.Ref
			}
			return packed, err
		},
	}, out.steps, out.stacks(), p)
}

// inlineCache makes the cache for the config of a platform's image.
func (b *build) inlineCache(out made) func(context.Context, string, []digest.Digest) ([]byte, error) {
	return func(ctx context.Context, platform string, diffIDs []digest.Digest) ([]byte, error) {
		stack := out.byPlatform[platform]
		if stack == nil {
			return nil, nil
		}
		return b.engine.caches.exporter.Inline(ctx, out.steps, stack, diffIDs)
	}
}
