package layers

import (
	"context"
	"errors"

	"github.com/slipwaybuild/slipway/solver/flight"
)

// once runs work under key, however many ask for it at the same time, lending it w; see package flight. The work holds what it
// needs by itself: it may outlive whoever asked first.
func once[K comparable](ctx context.Context, g *flight.Group[K, struct{}], key K, w any, work func(*flight.Call) error) error {
	_, err := g.Do(ctx, key, w, func() flight.Work[struct{}] {
		return flight.Work[struct{}]{Run: func(c *flight.Call) (struct{}, error) { return struct{}{}, work(c) }}
	})
	return err
}

// endFlights waits for work that was cancelled with the store, and may still wind down.
func (s *Store) endFlights() error {
	ctx := context.Background()
	return errors.Join(s.fetches.Close(ctx), s.packs.Close(ctx), s.spreads.Close(ctx))
}
