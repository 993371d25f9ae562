package solver

import (
	"context"
	"fmt"

	"github.com/slipwaybuild/slipway/solver/flight"
)

// Reasons of misses.
const (
	notFound   = "not found"
	beingMade  = "it is being made"
	recordGone = "the record is gone"
	cacheOff   = "the cache is ignored by this step or one before it"
)

// storeFault is the reason of a miss that the store is to blame for. A fault of the cache costs time and never the build.
func storeFault(err error) string { return fmt.Sprintf("cache fault: %v", err) }

// aliasAnswer is what the store knows of a promise.
type aliasAnswer struct {
	identity Identity
	known    bool
	imported bool   // it is another machine's
	reason   string // of a miss
}

// alias looks p up, once for all who ask now.
func (s *Solver) alias(ctx context.Context, p Promise) (aliasAnswer, error) {
	return ask(ctx, s.aliases, p, func(c *flight.Call) (aliasAnswer, error) {
		id, ok, err := s.store.Alias(c.Context(), p)
		switch {
		case c.Context().Err() != nil:
			return aliasAnswer{}, c.Context().Err()
		case err != nil:
			return aliasAnswer{reason: storeFault(err)}, nil
		case !ok:
			return aliasAnswer{reason: notFound}, nil
		}
		return aliasAnswer{identity: id, known: true}, nil
	})
}

// renamed returns the name that is used for id now. A fault means that id keeps its name.
func (s *Solver) renamed(ctx context.Context, id Identity) Identity {
	if to, ok, err := s.store.Alias(ctx, renaming(id)); err == nil && ok {
		return to
	}
	return id
}

// lookupAnswer is what the store has under an identity.
type lookupAnswer struct {
	out    *outcome // owned by who got the answer; nil if there is nothing
	reason string   // of a miss
}

// lookup looks id up, once for all who ask now.
func (s *Solver) lookup(ctx context.Context, id Identity) (lookupAnswer, error) {
	return ask(ctx, s.lookups, id, func(c *flight.Call) (lookupAnswer, error) {
		a := s.results(c.Context(), id)
		if err := c.Context().Err(); err != nil {
			s.release(a.out)
			return lookupAnswer{}, err
		}
		return a, nil
	})
}

// results is lookup without the sharing.
func (s *Solver) results(ctx context.Context, id Identity) lookupAnswer {
	if lost := s.losses.stuck(id); lost != nil {
		return lookupAnswer{reason: fmt.Sprintf("%s: %v", recordGone, lost)}
	}
	born := s.losses.now()
	results, ok, err := s.store.Results(ctx, id)
	switch {
	case err != nil:
		return lookupAnswer{reason: storeFault(err)}
	case !ok:
		return lookupAnswer{reason: notFound}
	}
	return lookupAnswer{out: newOutcome(id, results, born)}
}

// remember points a promise at an identity.
func (s *Solver) remember(ctx context.Context, p Promise, id Identity) {
	if err := s.store.PutAlias(ctx, p, id); err != nil {
		s.log.Warn("store alias", "promise", p, "identity", id, "error", err)
	}
}
