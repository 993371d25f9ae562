package solver

import (
	"context"
	"io"
	"sync"
)

// node is a vertex in one build: what the solver keeps beside a definition that never changes.
type node struct {
	b      *Build
	v      *Vertex
	report *report
	// gate holds one token: an op does one thing at a time, also when the former run was abandoned and has not ended yet.
	gate chan struct{}

	mu      sync.Mutex // guards what follows
	users   int        // flights that use the op
	retired bool       // the build is closed; the last user closes the op

	walked bool // guarded by Build.mu: see Build.showPruned
}

func newNode(b *Build, v *Vertex) *node {
	return &node{b: b, v: v, report: b.reports.of(v), gate: make(chan struct{}, 1)}
}

// input returns the node of input i.
func (n *node) input(i int) *node { return n.b.node(n.v.Inputs[i].Vertex) }

// enter waits until the op does nothing else. The caller then calls exit.
func (n *node) enter(ctx context.Context) error {
	select {
	case n.gate <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (n *node) exit() { <-n.gate }

// use keeps the op open until unuse, also when its build is closed in between. The build must be open.
func (n *node) use() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.users++
}

func (n *node) unuse() {
	n.mu.Lock()
	n.users--
	last := n.retired && n.users == 0
	n.mu.Unlock()
	if !last {
		return
	}
	if err := closeOp(n.v.Op); err != nil {
		n.b.s.log.Error("close step", "build", n.b.id, "step", n.v.Name, "error", err)
	}
}

// retire closes the op, or leaves that to those who use it.
func (n *node) retire() error {
	n.mu.Lock()
	n.retired = true
	unused := n.users == 0
	n.mu.Unlock()
	if !unused {
		return nil
	}
	return closeOp(n.v.Op)
}

// closeOp closes an op that can be closed.
func closeOp(op Op) error {
	if c, ok := op.(io.Closer); ok {
		return c.Close()
	}
	return nil
}
