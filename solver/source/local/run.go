package local

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/filesync"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/fsstat"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"github.com/tonistiigi/fsutil/types"
)

// run is one sync from one session.
type run struct {
	s        *Source
	q        *query
	caller   session.Caller
	progress *transferred

	memory string // where the manifest is kept; "" for nowhere
	hints  bool   // the client is asked for change hints, and they are believed
	prev   *previous
}

// previous is the layer made last of the same directory. It is only read, so several goroutines may.
type previous struct {
	manifest *manifest
	ref      *layers.Ref
	tree     fstree.Tree
	index    map[string]int
}

// find returns what is known of an entry that is certainly still the same, or nil.
func (p *previous) find(path string, meta [16]byte, hint string) *known {
	if p == nil || hint == "" {
		return nil
	}
	i, ok := p.index[path]
	if !ok {
		return nil
	}
	if k := &p.manifest.Entries[i]; k.Hint == hint && k.Meta == meta {
		return k
	}
	return nil
}

func (r *run) do(ctx context.Context) (*synced, error) {
	// Without a shared key nothing says that two sessions are of one client, and hints are good for one client only. What was transferred
	// last is then only what the next transfer is compared with.
	if r.s.known != nil && r.q.differ == "" && !r.q.metadata {
		r.hints = r.caller.SharedKey() != ""
		r.memory = r.q.memory(r.caller.SharedKey())
	}
	if r.memory != "" {
		r.recall(ctx)
		if r.prev != nil {
			defer r.s.release(r.prev.ref)
		}
	}
	t, err := filesync.Sync(ctx, r.caller, r.request())
	if err != nil {
		return nil, err
	}
	defer func() { _ = t.Close() }() // what went wrong is known from Next
	if r.q.metadata {
		return r.packMetadata(ctx, t)
	}
	f := &feed{run: r, t: t}
	if r.prev != nil {
		same, err := f.compare(ctx)
		if err != nil {
			return nil, err
		}
		if same {
			r.rehint(f)
			return &synced{ref: r.prev.ref.Clone(), content: r.prev.manifest.Content}, nil
		}
	}
	return r.pack(ctx, f)
}

func (r *run) request() filesync.Request {
	q := filesync.Request{
		Dir: r.q.name, Include: r.q.include, Exclude: r.q.exclude, Follow: r.q.follow,
		Hints: r.hints, Limits: r.s.o.Limits, Progress: r.progress.add,
	}
	switch {
	case r.q.metadata:
		q.Want = func(st *types.Stat, _ string) bool { return r.q.excepted(st.Path) }
	case r.prev != nil && r.hints:
		q.Want = func(st *types.Stat, hint string) bool {
			if hint == "" {
				return true
			}
			e := entry(st)
			return r.prev.find(e.Path, metaSum(&e), hint) == nil
		}
	}
	return q
}

// recall looks the previous layer up. Whatever is wrong with it, the files are transferred.
func (r *run) recall(ctx context.Context) {
	m, err := r.s.known.load(r.memory)
	if err != nil {
		r.s.o.Logger.Warn("manifest of local source", "error", err)
	}
	if m == nil {
		return
	}
	ref, err := r.s.o.Store.Pin(ctx, m.Layer)
	if err != nil {
		if !errors.Is(err, layers.ErrNotFound) {
			r.s.o.Logger.Warn("previous layer of local source", "error", err)
		}
		return
	}
	tree, err := r.s.o.Store.Tree(ctx, ref)
	if err != nil {
		r.s.o.Logger.Warn("previous layer of local source", "error", err)
		r.s.release(ref)
		return
	}
	p := &previous{manifest: m, ref: ref, tree: tree, index: make(map[string]int, len(m.Entries))}
	for i := range m.Entries {
		p.index[m.Entries[i].Path] = i
	}
	r.prev = p
}

// pack makes the layer and remembers it.
func (r *run) pack(ctx context.Context, f *feed) (*synced, error) {
	ref, err := r.s.o.Store.Pack(ctx, f, r.importOptions())
	if err != nil {
		return nil, err
	}
	sum, entries := f.summary()
	v := &synced{ref: ref, content: sum.digest()}
	if r.memory != "" {
		r.remember(&manifest{Layer: ref.IDs()[0], Content: v.content, Entries: entries})
	}
	return v, nil
}

func (r *run) remember(m *manifest) {
	if err := r.s.known.store(r.memory, m); err != nil {
		r.s.o.Logger.Warn("remember local source", "error", err)
	}
}

// rehint remembers the hints of files that had others, or none because they were young, and turned out to be the same: next time they
// need not be transferred.
func (r *run) rehint(f *feed) {
	m := *r.prev.manifest
	m.Entries = slices.Clone(m.Entries)
	changed := false
	for i, it := range f.ahead {
		changed = changed || m.Entries[i].Hint != it.hint
		m.Entries[i].Hint = it.hint
	}
	if changed {
		r.remember(&m)
	}
}

func (r *run) importOptions() layers.ImportOptions {
	return layers.ImportOptions{Labels: layers.Labels{Description: "local source for " + r.q.name, Use: layers.UseLocal}}
}

// entry turns what a client said into a tree's entry. Attributes that are the host's own business stay out of it: labels of the
// client's security module, and overlayfs's marks, which would mean something to ours.
func entry(st *types.Stat) fstree.Entry {
	e := fsstat.Entry(st)
	for k := range e.Xattrs {
		if k == "security.selinux" || strings.HasPrefix(k, "trusted.overlay.") || strings.HasPrefix(k, "user.overlay.") {
			delete(e.Xattrs, k)
		}
	}
	return e
}
