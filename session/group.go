package session

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/slipwaybuild/slipway/session/peer"
)

// Group is a list of sessions any of which may serve, each of the client it belongs to. It holds ids and no sessions, so it may be kept for as long as one likes. A
// nil Group is an empty one. It does not change, and may be used concurrently.
type Group struct {
	m         *Manager
	keys      []key
	owners    []peer.Identity // of the sessions, and of those that are asked for by name
	witnesses []Witness
}

func newGroup(m *Manager, owner peer.Identity, ids []string) *Group {
	g := &Group{m: m, owners: []peer.Identity{owner}}
	for _, id := range ids {
		if id = bareID(id); id != "" {
			g.add(key{owner, id})
		}
	}
	return g
}

func (g *Group) add(keys ...key) {
	for _, k := range keys {
		if !slices.Contains(g.keys, k) {
			g.keys = append(g.keys, k)
		}
	}
}

// IDs lists the group's session ids, in order of preference.
func (g *Group) IDs() []string {
	if g == nil {
		return nil
	}
	ids := make([]string, len(g.keys))
	for i, k := range g.keys {
		ids[i] = k.id
	}
	return ids
}

// Keys names the group's sessions so that no two clients' have one name. They are for comparing.
func (g *Group) Keys() []string {
	if g == nil {
		return nil
	}
	names := make([]string, len(g.keys))
	for i, k := range g.keys {
		names[i] = string(k.owner) + " " + k.id // an id has no space
	}
	return names
}

// Owners lists the clients whose sessions the group may use.
func (g *Group) Owners() []peer.Identity {
	if g == nil {
		return nil
	}
	return slices.Clone(g.owners)
}

// Get returns the session with the id, in the group or not, if it belongs to one of the group's owners. It waits as [Manager.Get] does.
func (g *Group) Get(ctx context.Context, id string) (Caller, error) {
	if g == nil || len(g.owners) == 0 {
		return nil, fmt.Errorf("%w: the request named none", ErrNoSession)
	}
	var keys []key
	for _, owner := range g.owners {
		keys = append(keys, key{owner, bareID(id)})
	}
	return g.m.get(ctx, keys)
}

// Join returns a group of the sessions and witnesses of all groups, each once, in the order given. All groups are of one Manager; nil
// ones are skipped.
func Join(groups ...*Group) *Group {
	j := &Group{}
	for _, g := range groups {
		if g == nil {
			continue
		}
		if j.m == nil {
			j.m = g.m
		}
		j.witness(g.witnesses...)
		j.add(g.keys...)
		for _, o := range g.owners {
			if !slices.Contains(j.owners, o) {
				j.owners = append(j.owners, o)
			}
		}
	}
	return j
}

// Any calls f with one session after another until one serves: an error for which the session is to blame (gone, or
// codes.Unavailable, codes.Unimplemented, or ErrNotSupported) tries the next; any other ends Any and is returned as it is.
//
// Sessions that are here are tried first, in the group's order; then one that has not arrived yet is waited for, within the
// Manager's limits. ErrNoSession if none served; the error says of every id why. f may be called several times, one after another.
func (g *Group) Any(ctx context.Context, f func(context.Context, Caller) error) error {
	if g == nil || len(g.keys) == 0 {
		return fmt.Errorf("%w: the request named none", ErrNoSession)
	}
	w := g.m.waiter(g.keys)
	defer w.stop()
	var failed []error
	for {
		r, err := w.next(ctx)
		if err != nil {
			return fmt.Errorf("waiting for a session of %v: %w", g.IDs(), err)
		}
		if r == nil {
			return nobody(failed, w.missing())
		}
		err = f(ctx, r)
		if err == nil || ctx.Err() != nil || !toBlame(r, err) {
			return err
		}
		failed = append(failed, fmt.Errorf("session %s: %w", r.id, err))
	}
}

// toBlame tells whether another session could do better.
func toBlame(r *remote, err error) bool {
	if errors.Is(err, ErrNotSupported) || r.over() {
		return true
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.Unimplemented:
		return true
	default:
		return false
	}
}

func nobody(failed []error, missing string) error {
	all := errors.Join(failed...)
	switch {
	case all == nil:
		return fmt.Errorf("%w: %s", ErrNoSession, missing)
	case missing == "":
		return fmt.Errorf("%w: %w", ErrNoSession, all)
	}
	return fmt.Errorf("%w: %w; %s", ErrNoSession, all, missing)
}
