package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/progress"
	"github.com/slipwaybuild/slipway/solver/remotecache"
)

// cacheImports are the caches that a build imports, and the places it opened for them.
type cacheImports struct {
	remotecache.Imports

	mu     sync.Mutex
	remove []func()
}

func (c *cacheImports) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.remove {
		f()
	}
	c.remove = nil
}

// requestedImports lists the caches that a request names: for the build, or as options of its frontend.
func requestedImports(r Request) ([]gwclient.CacheOptionsEntry, error) {
	list := append([]gwclient.CacheOptionsEntry(nil), r.CacheImports...)
	if attr := r.FrontendAttrs["cache-imports"]; attr != "" {
		var more []gwclient.CacheOptionsEntry
		if err := json.Unmarshal([]byte(attr), &more); err != nil {
			return nil, fmt.Errorf("%w: failed to unmarshal cache-imports (%q): %w", ErrInvalidRequest, attr, err)
		}
		list = append(list, more...)
	}
	for ref := range strings.SplitSeq(r.FrontendAttrs["cache-from"], ",") {
		if ref = strings.TrimSpace(ref); ref != "" {
			list = append(list, gwclient.CacheOptionsEntry{Type: "registry", Attrs: map[string]string{"ref": ref}})
		}
	}
	return list, nil
}

// ImportCaches lets what the build looks up from now on be found in these caches, too. They are read when something is looked up.
func (b *build) ImportCaches(list []gwclient.CacheOptionsEntry) {
	for _, im := range list {
		key := importKey(im)
		b.imports.Add(key, func() *remotecache.Import {
			return remotecache.NewImport(b.engine.layers, func(ctx context.Context) (remotecache.Place, []*remotecache.Cache, error) {
				return b.openImport(ctx, im)
			})
		})
	}
}

// importKey tells one import from another. It may hold credentials.
func importKey(im gwclient.CacheOptionsEntry) string {
	if im.Type == "registry" && im.Attrs["registry.insecure"] == "" {
		return "registry " + im.Attrs["ref"]
	}
	text, err := json.Marshal(im.Attrs)
	if err != nil {
		panic(err) // strings only
	}
	return im.Type + " " + string(text)
}

// importTitle is how people know an import.
func importTitle(im gwclient.CacheOptionsEntry) string {
	if im.Type == "registry" && im.Attrs["ref"] != "" {
		return im.Attrs["ref"]
	}
	return im.Type + ":" + digest.FromString(importKey(im)).Encoded()[:12]
}

// openImport reads a cache, as a step of its own that viewers see. That it cannot be read makes the build slower, and does not fail it.
func (b *build) openImport(ctx context.Context, im gwclient.CacheOptionsEntry) (place remotecache.Place, found []*remotecache.Cache, err error) {
	err = b.step(ctx, "importing cache manifest from "+importTitle(im), func(ctx context.Context, p progress.Writer) error {
		open, ok := b.engine.caches.imports[im.Type]
		if !ok {
			return fmt.Errorf("unknown cache importer: %s", im.Type)
		}
		if place, err = open(ctx, b.sessions, im.Attrs); err != nil {
			return fmt.Errorf("failed to configure %s cache importer: %w", im.Type, err)
		}
		if found, err = place.Load(ctx); err != nil {
			return err
		}
		return tellFound(p, place, found)
	})
	if err == nil && remotecache.IsLocation(place.Location()) {
		remove := b.engine.caches.table.Add(b.sessions, place)
		b.imports.mu.Lock()
		defer b.imports.mu.Unlock()
		b.imports.remove = append(b.imports.remove, remove)
	}
	return place, found, err
}

// tellFound says what an import is good for.
func tellFound(p progress.Writer, place remotecache.Place, found []*remotecache.Cache) error {
	steps, foreign := 0, 0
	for _, c := range found {
		steps += len(c.Entries)
		foreign += c.Foreign
	}
	switch {
	case len(found) == 0:
		return fmt.Errorf("no cache at %s: %w", place.Title(), errdefs.ErrNotFound)
	case foreign > 0:
		note(p, fmt.Sprintf("ignoring %d records that another builder made for itself, such as BuildKit", foreign))
	}
	note(p, fmt.Sprintf("found the results of %d steps", steps))
	return nil
}

// note writes a line of progress.
func note(p progress.Writer, line string) {
	now := time.Now()
	p.Status(progress.Status{ID: line, Started: &now, Completed: &now})
}
