package solver

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
)

// Build is one build's questions about its graph. Vertices become known to it when they are asked for, and may come from
// several definitions; each is asked each question at most once. All methods are safe for concurrent use.
type Build struct {
	s       *Solver
	id      string
	lender  any
	imports Imports // nil if there are none
	nonce   string  // salts the identities of steps that ignore the cache
	reports *reports
	cancel  context.CancelFunc
	born    int64 // by the solver's count of losses

	promises *question[promised]
	aliases  *question[aliasAnswer]
	names    *question[named]
	results  *question[*outcome]

	callers sync.WaitGroup // of exported methods
	ended   chan struct{}  // closed when Close has done its work

	mu       sync.Mutex // guards what follows
	nodes    map[*Vertex]*node
	outcomes []*outcome            // holds of this build
	made     map[Identity]*outcome // those of them that are to be used
	closed   bool
}

func newBuild(s *Solver, opts BuildOptions, nonce string) *Build {
	ctx, cancel := context.WithCancel(context.Background())
	b := &Build{
		s: s, id: opts.ID, lender: opts.Lender, imports: opts.Imports, nonce: nonce, cancel: cancel, born: s.losses.now(),
		reports: newReports(opts.Sink), ended: make(chan struct{}),
		nodes: map[*Vertex]*node{}, made: map[Identity]*outcome{},
	}
	b.promises = newQuestion(ctx, b.askPromise)
	b.aliases = newQuestion(ctx, b.askAlias)
	b.names = newQuestion(ctx, b.askName)
	b.results = newQuestion(ctx, b.askResult)
	return b
}

// Result returns what e gives, made if it is not to be had. The caller owns it; nil is an empty one. An error is a
// [VertexError] when it is the fault of a step, [ErrClosed] after Close, and ctx's own when that ends.
func (b *Build) Result(ctx context.Context, e Edge) (Result, error) {
	out, err := b.outcome(ctx, e)
	if err != nil {
		return nil, err
	}
	defer b.callers.Done()
	return out.output(e)
}

// Evaluate sees to it that the edges' results are there, all of them at once, and hands none out.
func (b *Build) Evaluate(ctx context.Context, edges ...Edge) error {
	return each(ctx, len(edges), func(ctx context.Context, i int) error {
		out, err := b.outcome(ctx, edges[i])
		if err != nil {
			return err
		}
		defer b.callers.Done()
		_, err = pick(edges[i:i+1], []*outcome{out})
		return err
	})
}

// Identity names what e gives, making only what its name depends on.
func (b *Build) Identity(ctx context.Context, e Edge) (Identity, error) {
	if err := b.enter(); err != nil {
		return Identity{}, err
	}
	defer b.callers.Done()
	id, err := b.identity(ctx, b.node(e.Vertex))
	if err != nil {
		return Identity{}, err
	}
	return outputIdentity(id, e.Output), nil
}

// Rewind says that the bytes behind e's result turned out to be lost: its record is forgotten, and the next Result makes it
// again. Results that were handed out stay valid holds on what is lost.
func (b *Build) Rewind(ctx context.Context, e Edge, why error) error {
	if err := b.enter(); err != nil {
		return err
	}
	defer b.callers.Done()
	n := b.node(e.Vertex)
	if a, ok := b.results.known(n); ok && a.err == nil {
		b.s.forget(ctx, a.val, why)
		b.drop(n, a.val)
	}
	return nil
}

// outcome asks for e's vertex. When there is no error, the caller ends its call with callers.Done, until which the outcome
// stays.
func (b *Build) outcome(ctx context.Context, e Edge) (*outcome, error) {
	if err := b.enter(); err != nil {
		return nil, err
	}
	out, err := b.result(ctx, b.node(e.Vertex))
	if err != nil {
		b.callers.Done()
	}
	return out, err
}

// enter counts a caller, unless the build is closed.
func (b *Build) enter() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return ErrClosed
	}
	b.callers.Add(1)
	return nil
}

// reachable returns all vertices that were asked for and those before them, of which some may never have been looked at.
func (b *Build) reachable() []*node {
	b.mu.Lock()
	todo := slices.Collect(maps.Values(b.nodes))
	b.mu.Unlock()
	seen := make(map[*node]bool, len(todo))
	for len(todo) > 0 {
		var n *node
		n, todo = todo[len(todo)-1], todo[:len(todo)-1]
		if seen[n] {
			continue
		}
		seen[n] = true
		for i := range n.v.Inputs {
			todo = append(todo, n.input(i))
		}
	}
	return slices.Collect(maps.Keys(seen))
}

// node returns what is kept for v.
func (b *Build) node(v *Vertex) *node {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.nodes[v]
	if n == nil {
		n = newNode(b, v)
		b.nodes[v] = n
	}
	return n
}

// own takes over a hold on out, until the build is closed.
func (b *Build) own(out *outcome) *outcome {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.outcomes = append(b.outcomes, out)
	b.made[out.identity] = out
	return out
}

// owned returns what this build has under id, nil if nothing.
func (b *Build) owned(id Identity) *outcome {
	b.mu.Lock()
	defer b.mu.Unlock()
	if out := b.made[id]; out != nil && !b.s.losses.covers(out) && out.perished() == nil {
		return out
	}
	return nil
}

// drop stops using out as the answer for n. It stays held: others may be reading what is left of it.
func (b *Build) drop(n *node, out *outcome) {
	b.results.forgetIf(n, func(a answer[*outcome]) bool { return a.val == out })
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.made[out.identity] == out {
		delete(b.made, out.identity)
	}
}

// showPruned tells viewers of the steps before n, which was found, that they were not needed. Each is visited once in a build.
func (b *Build) showPruned(n *node) {
	for todo := []*node{n}; len(todo) > 0; {
		n, todo = todo[len(todo)-1], todo[:len(todo)-1]
		for i := range n.v.Inputs {
			if in := n.input(i); b.visit(in) {
				in.report.pruned()
				todo = append(todo, in)
			}
		}
	}
}

// visit tells whether n is seen for the first time.
func (b *Build) visit(n *node) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	first := !n.walked
	n.walked = true
	return first
}

// Close ends what the build asks for, gives back what it holds and closes its ops, except those that do work other builds wait
// for: these are closed when that ends. Work that nobody else wants is cancelled and winds down by itself; [Solver.Close]
// waits for it. Close may be called again and waits for the first call.
func (b *Build) Close() error {
	b.mu.Lock()
	again := b.closed
	b.closed = true
	b.mu.Unlock()
	if again {
		<-b.ended
		return nil
	}
	defer close(b.ended)
	return b.end()
}

// shut makes a build that was never open.
func (b *Build) shut() {
	b.cancel()
	b.closed = true
	close(b.ended)
}

func (b *Build) end() error {
	b.cancel()
	ctx := context.Background() // what is waited for here was just cancelled
	err := errors.Join(b.results.calls.Close(ctx), b.names.calls.Close(ctx), b.aliases.calls.Close(ctx), b.promises.calls.Close(ctx))
	b.callers.Wait()
	for _, out := range b.outcomes {
		err = errors.Join(err, out.release())
	}
	for _, n := range b.reachable() {
		err = errors.Join(err, n.retire())
	}
	b.reports.end()
	b.s.forgetBuild(b)
	return err
}
