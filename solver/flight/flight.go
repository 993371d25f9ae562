package flight

import (
	"context"
	"errors"
	"sync"
)

// ErrClosed is returned by a group that was closed.
var ErrClosed = errors.New("closed")

// Work is what a flight does. It is made by the leader and must capture nothing that ends with the leader.
type Work[V any] struct {
	// Run does the work on a goroutine of its own, under the call's context.
	Run func(c *Call) (V, error)
	// Join, if not nil, is called for every waiter, the leader included, by the waiter's own goroutine before it waits; leave is
	// called by the same goroutine when the waiter has its answer or gives up. Calls for different waiters may overlap each
	// other and Run.
	Join func(participant any) (leave func())
	// Done, if not nil, is called once, when the work has ended and every waiter has left.
	Done func()
}

// Options say how a group treats values. Both functions are nil for values that nobody owns.
type Options[V any] struct {
	// Clone makes the value that one waiter gets, which then owns it.
	Clone func(V) V
	// Release gives back the original once the flight has ended and every waiter has its own.
	Release func(V)
}

// Group is a table of flights. All methods are safe for concurrent use.
type Group[K comparable, V any] struct {
	opts   Options[V]
	base   context.Context
	cancel context.CancelFunc

	mu      sync.Mutex // guards what follows, and the waiters of every flight
	flights map[K]*flight[K, V]
	running int           // flights whose work has not ended, in the table or not
	idle    chan struct{} // closed when a closed group has nothing running
	closed  bool
}

// New returns a group whose flights run under ctx: its values are theirs, and its end cancels them.
func New[K comparable, V any](ctx context.Context, opts Options[V]) *Group[K, V] {
	if opts.Clone == nil {
		opts.Clone = func(v V) V { return v }
	}
	if opts.Release == nil {
		opts.Release = func(V) {}
	}
	base, cancel := context.WithCancel(ctx)
	return &Group[K, V]{opts: opts, base: base, cancel: cancel, flights: map[K]*flight[K, V]{}, idle: make(chan struct{})}
}

// flight is one run and those who wait for it.
type flight[K comparable, V any] struct {
	call Call
	key  K
	work Work[V]
	done chan struct{} // closed when val and err are set

	val    V
	err    error
	ended  bool
	takers int // after the end: waiters that have not taken their value yet
}

// Do returns what the flight under key gives: the one that is on, or a new one. lead is called, under the group's lock, only
// if this call starts it; it must not block or use the group. When ctx ends first, Do leaves the flight and returns ctx's error.
func (g *Group[K, V]) Do(ctx context.Context, key K, participant any, lead func() Work[V]) (V, error) {
	return g.do(ctx, key, participant, lead, false)
}

// DoHere is Do for a caller that has nothing better to do, and for whom nobody waits once ctx has ended: if it leads, it does the
// work on its own goroutine, and then returns when the work has ended and not when ctx does. Everybody else sees no difference.
// It spares a goroutine for each level of work that asks for work.
func (g *Group[K, V]) DoHere(ctx context.Context, key K, participant any, lead func() Work[V]) (V, error) {
	return g.do(ctx, key, participant, lead, true)
}

func (g *Group[K, V]) do(ctx context.Context, key K, participant any, lead func() Work[V], here bool) (V, error) {
	for {
		f, w, err := g.enter(ctx, key, participant, lead)
		if err != nil {
			var none V
			return none, err
		}
		if w.leads && !here {
			go g.run(f)
		}
		v, err := g.wait(ctx, f, w, w.leads && here)
		if !g.again(ctx, w, err) {
			return v, err
		}
	}
}

// Join is Do for those who would not start a flight themselves: joined tells whether one was on that had an answer for them.
func (g *Group[K, V]) Join(ctx context.Context, key K, participant any) (v V, joined bool, err error) {
	f, w, err := g.enter(ctx, key, participant, nil)
	if f == nil {
		return v, false, err
	}
	v, err = g.wait(ctx, f, w, false)
	if g.again(ctx, w, err) {
		return v, false, nil
	}
	return v, true, err
}

// again tells whether err is somebody else's cancellation or time-out.
func (g *Group[K, V]) again(ctx context.Context, w *waiter, err error) bool {
	return err != nil && !w.leads && ctx.Err() == nil && IsContextError(err)
}

// IsContextError tells whether err speaks of a cancelled context or one past its deadline.
func IsContextError(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// enter joins the flight under key, or starts one if lead is not nil. Without either it returns no flight.
func (g *Group[K, V]) enter(ctx context.Context, key K, participant any, lead func() Work[V]) (*flight[K, V], *waiter, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, nil, ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	f := g.flights[key]
	leads := f == nil
	if leads {
		if lead == nil {
			return nil, nil, nil
		}
		f = g.start(key, lead())
	}
	return f, f.call.add(participant, leads), nil
}

// start puts a flight in the table. Its leader sees to it that it runs. The caller holds the lock, so that the flight is never
// seen without waiters.
func (g *Group[K, V]) start(key K, work Work[V]) *flight[K, V] {
	ctx, cancel := context.WithCancel(g.base)
	f := &flight[K, V]{
		call: Call{ctx: ctx, cancel: cancel, mu: &g.mu},
		key:  key, work: work, done: make(chan struct{}),
	}
	g.flights[key] = f
	g.running++
	return f
}

// run does the work. The end is deferred because the work may also leave by runtime.Goexit.
func (g *Group[K, V]) run(f *flight[K, V]) {
	var v V
	err := errGoexit
	defer func() { g.end(f, v, err) }()
	v, err = protect(&f.call, f.work.Run)
}

// end publishes the outcome and takes the flight from the table in one step, so that a newcomer either joins and gets the
// outcome, or starts afresh and sees all that the work left behind.
func (g *Group[K, V]) end(f *flight[K, V], v V, err error) {
	g.mu.Lock()
	if err != nil && g.closed && IsContextError(err) {
		err = ErrClosed
	}
	if g.flights[f.key] == f {
		delete(g.flights, f.key)
	}
	f.val, f.err, f.ended = v, err, true
	f.takers = len(f.call.waiters)
	orphan := f.takers == 0
	close(f.done)
	g.mu.Unlock()

	f.call.cancel()
	if orphan {
		g.finish(f)
	}
	g.mu.Lock()
	g.running--
	if g.closed && g.running == 0 {
		close(g.idle)
	}
	g.mu.Unlock()
}

// wait waits for the flight's end or ctx's, whichever comes first; here, the flight is run meanwhile.
func (g *Group[K, V]) wait(ctx context.Context, f *flight[K, V], w *waiter, here bool) (V, error) {
	leave := func() {}
	if f.work.Join != nil {
		leave = f.work.Join(w.participant)
	}
	if here {
		stop := context.AfterFunc(ctx, func() { g.leave(f, w) })
		g.run(f)
		stop()
	} else {
		select {
		case <-f.done:
		case <-ctx.Done():
			g.leave(f, w)
		}
	}
	leave()
	if g.takes(f, w) {
		return g.take(f)
	}
	var none V
	return none, ctx.Err()
}

// leave ends the wait of w for a flight that has not ended. The last to leave cancels it and removes it from the table.
func (g *Group[K, V]) leave(f *flight[K, V], w *waiter) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f.ended {
		return // and w is one of those that take
	}
	delete(f.call.waiters, w)
	if len(f.call.waiters) == 0 {
		if g.flights[f.key] == f {
			delete(g.flights, f.key)
		}
		f.call.cancel()
	}
}

// takes tells whether w was still waiting when the flight ended.
func (g *Group[K, V]) takes(f *flight[K, V], w *waiter) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !f.ended {
		return false
	}
	_, waited := f.call.waiters[w]
	delete(f.call.waiters, w)
	return waited
}

// take gives one waiter its value. The original is alive while any taker is counted, so it is cloned without the lock.
func (g *Group[K, V]) take(f *flight[K, V]) (V, error) {
	var v V
	if f.err == nil {
		v = g.opts.Clone(f.val)
	}
	g.mu.Lock()
	f.takers--
	last := f.takers == 0
	g.mu.Unlock()
	if last {
		g.finish(f)
	}
	return v, f.err
}

// finish clears up after a flight that has ended and that nobody waits for.
func (g *Group[K, V]) finish(f *flight[K, V]) {
	if f.err == nil {
		g.opts.Release(f.val)
	}
	if f.work.Done != nil {
		f.work.Done()
	}
}

// Close refuses new flights, cancels those that are on and waits until all work has ended, abandoned work included, or until
// ctx ends. Waiters get [ErrClosed]. Close may be called again, to go on waiting.
func (g *Group[K, V]) Close(ctx context.Context) error {
	g.mu.Lock()
	if !g.closed {
		g.closed = true
		if g.running == 0 {
			close(g.idle)
		}
	}
	g.mu.Unlock()
	g.cancel()
	select {
	case <-g.idle:
		return nil
	default:
	}
	select {
	case <-g.idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
