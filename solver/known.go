package solver

import (
	"context"
	"fmt"
)

// Step is what is known of one step of a build.
type Step struct {
	Vertex *Vertex
	// Promises lead to Identity: the step's own, and the one under which a result that ignored the cache is found later.
	Promises []Promise
	Identity Identity
	// Results are there; the build keeps them until it is closed.
	Results []Result
	// Contents are digests that steps of this build have of the results.
	Contents []Content
}

// Known lists the steps that edges depend on, inputs before their users, with what this build, the cache or an imported cache has of
// them. Nothing is made. Steps of which nothing is known are left out.
func (b *Build) Known(ctx context.Context, edges ...Edge) ([]Step, error) {
	if err := b.enter(); err != nil {
		return nil, err
	}
	defer b.callers.Done()
	nodes := b.order(edges)
	steps := make([]Step, 0, len(nodes))
	at := map[*node]int{}
	for _, n := range nodes {
		step, ok, err := b.known(ctx, n)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", n.v.Name, err)
		}
		if ok {
			at[n] = len(steps)
			steps = append(steps, step)
		}
	}
	for _, n := range nodes {
		for i, e := range n.v.Inputs {
			in, ok := at[n.input(i)]
			sel := n.v.Op.Selector(i)
			if !ok || sel == nil {
				continue
			}
			step := &steps[in]
			if d, ok, _ := b.knownContent(ctx, contentKey{identity: step.Identity, output: e.Output, selector: sel.Key()}); ok {
				step.Contents = append(step.Contents, Content{Output: e.Output, Selector: sel.Key(), Digest: d})
			}
		}
	}
	return steps, nil
}

// order lists the nodes that edges depend on, inputs first, each once.
func (b *Build) order(edges []Edge) []*node {
	type visit struct {
		n    *node
		next int // input
	}
	var list []*node
	seen := map[*node]bool{}
	for _, e := range edges {
		if e.Vertex == nil {
			continue
		}
		// Definitions may be deep: no recursion.
		for todo := []visit{{n: b.node(e.Vertex)}}; len(todo) > 0; {
			top := &todo[len(todo)-1]
			switch {
			case top.next == 0 && seen[top.n]:
				todo = todo[:len(todo)-1]
				continue
			case top.next == len(top.n.v.Inputs):
				if !seen[top.n] {
					seen[top.n] = true
					list = append(list, top.n)
				}
				todo = todo[:len(todo)-1]
				continue
			}
			top.next++
			todo = append(todo, visit{n: top.n.input(top.next - 1)})
		}
	}
	return list
}

// known says what there is of one step.
func (b *Build) known(ctx context.Context, n *node) (Step, bool, error) {
	p, err := b.promises.of(ctx, n)
	if err != nil {
		return Step{}, false, err
	}
	out, err := b.knownOutcome(ctx, n)
	if out == nil || err != nil {
		return Step{}, false, err
	}
	s := Step{Vertex: n.v, Promises: []Promise{p.promise}, Identity: out.identity, Results: out.results}
	if f, ok := b.names.known(n); ok && f.err == nil && n.v.IgnoreCache {
		s.Promises = append(s.Promises, renaming(f.val.plain))
	}
	return s, true, nil
}

// knownOutcome is what n gave in this build, or what is stored under its promise. It stays the build's; nil if there is none.
func (b *Build) knownOutcome(ctx context.Context, n *node) (*outcome, error) {
	if a, ok := b.results.known(n); ok && a.err == nil && !b.s.losses.covers(a.val) {
		return a.val, nil
	}
	a, err := b.aliases.of(ctx, n)
	if err != nil || !a.known {
		return nil, err
	}
	if out := b.owned(a.identity); out != nil {
		return out, nil
	}
	found, err := b.lookup(ctx, a.identity)
	if err != nil || found.out == nil {
		return nil, err
	}
	return b.own(found.out), nil
}
