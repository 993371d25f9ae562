package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/ops"
	"github.com/slipwaybuild/slipway/solver/progress"
	"github.com/slipwaybuild/slipway/solver/remotecache"
)

// mountWait is how long an export waits for those who use a cache mount. Whoever wants to use it waits behind the export.
const mountWait = 30 * time.Second

// parseMounts reads which cache mounts go with a cache: "all", or ids separated by commas or semicolons.
func parseMounts(text string) (ids []string, all bool) {
	for _, id := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ';' }) {
		if id = strings.TrimSpace(id); id == "all" {
			all = true
		} else if id != "" && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids, all
}

// mountSources are the cache mounts that go with a cache: those that were named, and if all are wanted those of the build's steps.
func (b *build) mountSources(x cacheExport) []remotecache.MountSource {
	var ids []string
	for _, id := range x.mounts {
		ids = append(ids, id, "/"+id) // as the Dockerfile frontend writes it, after a namespace that is mostly empty
	}
	if x.allMounts {
		for _, ref := range b.refs.all() {
			if ref.used() {
				ids = append(ids, ref.graph.Use().CacheMounts...)
			}
		}
	}
	slices.Sort(ids)
	var list []remotecache.MountSource
	for _, id := range slices.Compact(ids) {
		list = append(list, remotecache.MountSource{
			ID: id,
			Open: func(ctx context.Context) (*layers.Ref, error) {
				ctx, cancel := context.WithTimeoutCause(ctx, mountWait, fmt.Errorf("it was in use for %s", mountWait))
				defer cancel()
				return b.engine.layers.PackVolume(ctx, id)
			},
			State: func() (string, bool) { return b.engine.layers.VolumeState(id) },
		})
	}
	return list
}

// cacheMounts knows which builds import caches, by their sessions: a new cache mount begins with what those import who wait for it. The
// zero value is ready.
type cacheMounts struct {
	mu      sync.Mutex
	imports map[string][]*cacheImports
}

var _ ops.CacheMounts = (*cacheMounts)(nil)

// add makes the imports of a build known until remove is called.
func (m *cacheMounts) add(sessions *session.Group, im *cacheImports) (remove func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.imports == nil {
		m.imports = map[string][]*cacheImports{}
	}
	ids := sessions.IDs()
	for _, id := range ids {
		m.imports[id] = append(m.imports[id], im)
	}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, id := range ids {
			m.imports[id] = slices.DeleteFunc(m.imports[id], func(o *cacheImports) bool { return o == im })
			if len(m.imports[id]) == 0 {
				delete(m.imports, id)
			}
		}
	}
}

func (m *cacheMounts) of(sessions *session.Group) (list []*cacheImports) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range sessions.IDs() {
		for _, im := range m.imports[id] {
			if !slices.Contains(list, im) {
				list = append(list, im)
			}
		}
	}
	return list
}

// Begin implements [ops.CacheMounts].
func (m *cacheMounts) Begin(ctx context.Context, sessions *session.Group, id string, p progress.Writer) (*layers.Ref, error) {
	tell := func(line string) {
		if p != nil {
			note(p, line)
		}
	}
	for _, im := range m.of(sessions) {
		ref, err := im.Mount(ctx, id, tell)
		if ref != nil || err != nil {
			return ref, err
		}
	}
	return nil, nil
}
