package solver

import (
	"context"
	"runtime/debug"
	"sync"

	"github.com/slipwaybuild/slipway/solver/flight"
	"golang.org/x/sync/errgroup"
)

// question is one question about the vertices of a build, a function that is asked once for each. It is suspending: who asks
// while it is being answered waits, and the answer is kept for who asks later. An error is an answer too, unless it is
// passing: the cancellation of one asker must not answer another, who then asks anew.
type question[V any] struct {
	ask   func(ctx context.Context, n *node) (V, error)
	calls *flight.Group[*node, V]

	mu      sync.Mutex // guards what follows
	answers map[*node]answer[V]
}

type answer[V any] struct {
	val V
	err error
}

func newQuestion[V any](ctx context.Context, ask func(context.Context, *node) (V, error)) *question[V] {
	return &question[V]{ask: ask, calls: flight.New[*node](ctx, flight.Options[V]{}), answers: map[*node]answer[V]{}}
}

// of returns the answer for n. ctx bounds the wait alone: the asking goes on while anybody waits.
func (q *question[V]) of(ctx context.Context, n *node) (V, error) {
	if a, ok := q.known(n); ok {
		return a.val, a.err
	}
	do, level := q.calls.Do, 1
	if d := depth(ctx); 0 < d && d < maxDepth {
		do, level = q.calls.DoHere, d+1
	}
	return do(ctx, n, nil, func() flight.Work[V] {
		return flight.Work[V]{Run: func(c *flight.Call) (V, error) {
			// Another flight may have ended between our look and the start of this one.
			if a, ok := q.known(n); ok {
				return a.val, a.err
			}
			v, err := q.ask(withDepth(c.Context(), level), n)
			if err == nil || !isPassing(err) {
				q.keep(n, answer[V]{v, err})
			}
			return v, err
		}}
	})
}

// known returns the answer for n if there is one.
func (q *question[V]) known(n *node) (answer[V], bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	a, ok := q.answers[n]
	return a, ok
}

func (q *question[V]) keep(n *node, a answer[V]) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.answers[n] = a
}

// forgetIf drops the answer for n if it is one that is not wanted.
func (q *question[V]) forgetIf(n *node, unwanted func(answer[V]) bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if a, ok := q.answers[n]; ok && unwanted(a) {
		delete(q.answers, n)
	}
}

// A question that waits for just one other answers it on its own goroutine: nothing can happen to it in between that its askers
// want to hear of, and its askers do not wait on its goroutine. So a chain of thousands of steps needs a few goroutines.
// Contexts carry how many questions are being answered on a goroutine; none, where the goroutine must stay free to leave.
type depthKey struct{}

// maxDepth bounds the stack: a goroutine that may grow without limit is one that a definition can crash the process with.
const maxDepth = 256

func withDepth(ctx context.Context, d int) context.Context {
	return context.WithValue(ctx, depthKey{}, d)
}

func depth(ctx context.Context) int {
	d, _ := ctx.Value(depthKey{}).(int)
	return d
}

// ask asks g for something short, a look-up: on the caller's goroutine if that may wait.
func ask[K comparable, V any](ctx context.Context, g *flight.Group[K, V], key K, run func(c *flight.Call) (V, error)) (V, error) {
	do := g.Do
	if depth(ctx) > 0 {
		do = g.DoHere
	}
	return do(ctx, key, nil, func() flight.Work[V] { return flight.Work[V]{Run: run} })
}

// each calls fn for 0 to n-1 at once and returns the first error, upon which the others are cancelled.
func each(ctx context.Context, n int, fn func(ctx context.Context, i int) error) error {
	if n == 1 {
		return fn(ctx, 0)
	}
	eg, ctx := errgroup.WithContext(ctx)
	ctx = withDepth(ctx, 0) // a sibling's failure must be heard at once
	for i := range n {
		eg.Go(func() (err error) {
			defer func() {
				if r := recover(); r != nil {
					err = &flight.PanicError{Value: r, Stack: debug.Stack()}
				}
			}()
			return fn(ctx, i)
		})
	}
	return eg.Wait()
}
