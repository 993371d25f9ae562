package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/slipwaybuild/slipway/solver/layers"
)

// collectEvery is how often collecting begins at most, and collectAfter how long a build's end is waited for others that end with it.
const (
	collectEvery = time.Minute
	collectAfter = time.Second
)

// collector follows the rules of what is removed: once at the start, and after builds.
type collector struct {
	rules  []GCRule
	prune  func(context.Context, layers.PruneOptions) error
	log    *slog.Logger
	wanted chan struct{}
	stop   context.CancelFunc
	done   chan struct{}
}

// startCollector begins to collect. Without rules nothing ever is.
func startCollector(rules []GCRule, prune func(context.Context, layers.PruneOptions) error, log *slog.Logger) (*collector, error) {
	for i, r := range rules {
		if _, err := ParseUsageFilter(r.Filters); err != nil {
			return nil, fmt.Errorf("rule %d of collecting: %w", i+1, err)
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	c := &collector{rules: rules, prune: prune, log: log, wanted: make(chan struct{}, 1), stop: stop, done: make(chan struct{})}
	go c.run(ctx)
	return c, nil
}

// want has it collect soon. It never waits.
func (c *collector) want() {
	select {
	case c.wanted <- struct{}{}:
	default:
	}
}

// close stops collecting, half-way if need be, and waits for that.
func (c *collector) close() error {
	c.stop()
	<-c.done
	return nil
}

func (c *collector) run(ctx context.Context) {
	defer close(c.done)
	if len(c.rules) == 0 {
		return
	}
	c.collect(ctx)
	for {
		select {
		case <-c.wanted:
		case <-ctx.Done():
			return
		}
		if !sleep(ctx, collectAfter) {
			return
		}
		c.collect(ctx)
		if !sleep(ctx, collectEvery) {
			return
		}
	}
}

func (c *collector) collect(ctx context.Context) {
	for i, r := range c.rules {
		// Checked before.
		match, err := ParseUsageFilter(r.Filters)
		if err == nil {
			err = c.prune(ctx, layers.PruneOptions{
				Filter: match, KeepDuration: r.KeepDuration, MaxUsed: r.MaxUsed, Reserved: r.Reserved, MinFree: r.MinFree, All: r.All,
			})
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			c.log.Warn("collect what is not used", "rule", i+1, "error", err)
		}
	}
}

// sleep waits for d; false is that ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
