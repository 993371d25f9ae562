package session

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Group is a list of sessions any of which may serve. It holds ids and no sessions, so it may be kept for as long as one likes. A
// nil Group is an empty one. It does not change, and may be used concurrently.
type Group struct {
	m         *Manager
	ids       []string
	witnesses []Witness
}

func newGroup(m *Manager, ids []string) *Group {
	g := &Group{m: m}
	g.add(ids)
	return g
}

func (g *Group) add(ids []string) {
	for _, id := range ids {
		if id = bareID(id); id != "" && !slices.Contains(g.ids, id) {
			g.ids = append(g.ids, id)
		}
	}
}

// IDs lists the group's session ids, in order of preference.
func (g *Group) IDs() []string {
	if g == nil {
		return nil
	}
	return slices.Clone(g.ids)
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
		j.add(g.ids)
		j.witness(g.witnesses...)
	}
	return j
}

// Any calls f with one session after another until one serves: an error for which the session is to blame (gone, or
// codes.Unavailable, codes.Unimplemented, or ErrNotSupported) tries the next; any other ends Any and is returned as it is.
//
// Sessions that are here are tried first, in the group's order; then one that has not arrived yet is waited for, within the
// Manager's limits. ErrNoSession if none served; the error says of every id why. f may be called several times, one after another.
func (g *Group) Any(ctx context.Context, f func(context.Context, Caller) error) error {
	if g == nil || len(g.ids) == 0 {
		return fmt.Errorf("%w: the request named none", ErrNoSession)
	}
	w := g.m.waiter(g.ids)
	defer w.stop()
	var failed []error
	for {
		r, err := w.next(ctx)
		if err != nil {
			return fmt.Errorf("waiting for a session of %v: %w", g.ids, err)
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
