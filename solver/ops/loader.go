package ops

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// loadKey tells vertices apart inside one build: by definition, and by which steps above were told to ignore the cache.
type loadKey [sha256.Size]byte

// Loader loads the definitions of one build. Vertices that several definitions share are the same values. Safe for concurrent
// use.
type Loader struct {
	f *Factory
	o LoadOptions
	*graphs
}

// graphs is what the loaders of one build share.
type graphs struct {
	mu       sync.Mutex // guards what follows
	vertices map[loadKey]*solver.Vertex
	outputs  map[*solver.Vertex]int // how many outputs each vertex has
	emptied  map[string]bool        // cache mounts that begin anew with this build, by id
}

// Under returns a loader for the same build that has a policy of its own, in place of l's. What both load alike are the same
// vertices.
func (l *Loader) Under(policy string, rewrite RewriteFunc, solve SolveFunc) *Loader {
	o := l.o
	o.Policy, o.Rewrite, o.Solve = policy, rewrite, solve
	return &Loader{f: l.f, o: o, graphs: l.graphs}
}

// Graph is one loaded definition. It never changes.
type Graph struct {
	edge     solver.Edge
	vertices int
	source   *pb.Source
}

// Edge is what the definition asks for. Its Vertex is nil for an empty definition.
func (g *Graph) Edge() solver.Edge { return g.edge }

// Len is the number of vertices the definition needs.
func (g *Graph) Len() int { return g.vertices }

// Load turns a definition into vertices. Nothing runs. An error is of the definition's making, mostly a [DefinitionError].
func (l *Loader) Load(ctx context.Context, def *pb.Definition) (*Graph, error) {
	p, err := parse(def)
	if err != nil {
		return nil, err
	}
	if p == nil {
		return &Graph{}, nil
	}
	if err := checkSource(def.Source); err != nil {
		return nil, &DefinitionError{Err: err}
	}
	order, err := p.order()
	if err != nil {
		return nil, err
	}

	// Before the lock: a policy may go to the client, and to the network.
	if err := l.rewrite(ctx, order); err != nil {
		return nil, err
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	type loaded struct {
		v   *solver.Vertex
		key loadKey
	}
	seen := make(map[digest.Digest]loaded, len(order))
	for _, op := range order {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		edges := make([]solver.Edge, len(op.op.Inputs))
		keys := make([]loadKey, len(op.op.Inputs))
		for i, in := range op.op.Inputs {
			dep := seen[digest.Digest(in.Digest)]
			edges[i], keys[i] = solver.Edge{Vertex: dep.v, Output: int(in.Index)}, dep.key
		}
		v, key, err := l.vertex(op, edges, keys)
		if err != nil {
			return nil, l.fail(op, err)
		}
		seen[op.digest] = loaded{v, key}
	}
	root := seen[p.root].v
	if p.output >= l.outputs[root] {
		return nil, &DefinitionError{Op: p.root, Err: fmt.Errorf("output %d is asked for, it has %d", p.output, l.outputs[root])}
	}
	return &Graph{edge: solver.Edge{Vertex: root, Output: p.output}, vertices: len(order), source: def.Source}, nil
}

// fail wraps what is wrong with an op. Refusals stay as they are: they are no fault of the definition.
func (l *Loader) fail(op *parsedOp, err error) error {
	var ent *EntitlementError
	var dev *DeviceError
	if errors.As(err, &ent) || errors.As(err, &dev) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &DefinitionError{Op: op.digest, Err: err}
}

// vertex makes the vertex of an op, or finds it. l.mu is held.
func (l *Loader) vertex(op *parsedOp, edges []solver.Edge, keys []loadKey) (*solver.Vertex, loadKey, error) {
	// First of all: what an op needs is said beside it, and another may have said nothing of the same op.
	if err := l.f.checkCaps(op.meta); err != nil {
		return nil, loadKey{}, err
	}
	ignore := op.meta.GetIgnoreCache() || l.o.NoCache && op.op.GetSource() == nil
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%t\n%s\n", op.digest, ignore, op.policy)
	for _, k := range keys {
		h.Write(k[:])
	}
	key := loadKey(h.Sum(nil))
	if v, ok := l.vertices[key]; ok {
		return v, key, nil
	}
	for i, e := range edges {
		if n := l.outputs[e.Vertex]; e.Output >= n {
			return nil, key, fmt.Errorf("input %d asks for output %d of %s, which has %d", i, e.Output, e.Vertex.ID, n)
		}
	}
	work, outputs, err := l.work(op, len(edges))
	if err != nil {
		return nil, key, err
	}
	if ignore {
		l.emptyCacheMounts(op.op.GetExec())
		if e, ok := work.(*execOp); ok {
			e.emptied = true
		}
	}
	v := &solver.Vertex{
		ID:          op.digest,
		Name:        nameOf(op, edges),
		Op:          work,
		Inputs:      edges,
		IgnoreCache: ignore,
		Export:      exportOf(op.meta),
		Group:       groupOf(op.meta),
	}
	if n, ok := work.(interface{ named(string) }); ok {
		n.named(v.Name)
	}
	l.vertices[key], l.outputs[v] = v, outputs
	return v, key, nil
}

// work makes the op and says how many outputs it has.
func (l *Loader) work(op *parsedOp, inputs int) (solver.Op, int, error) {
	platform := l.f.normalise(op.op.Platform)
	switch o := op.op.Op.(type) {
	case *pb.Op_Source:
		return l.sourceOp(o.Source, platform, inputs)
	case *pb.Op_Exec:
		return l.execOp(op, o.Exec, platform, inputs)
	case *pb.Op_File:
		return l.fileOp(o.File, inputs)
	case *pb.Op_Merge:
		return l.mergeOp(o.Merge, inputs)
	case *pb.Op_Diff:
		return l.diffOp(o.Diff, inputs)
	case *pb.Op_Build:
		return l.buildOp(o.Build, inputs)
	case *pb.Op_Passthrough:
		return l.passthroughOp(o.Passthrough, inputs)
	case nil:
		return nil, 0, errors.New("op of no known kind")
	default:
		return nil, 0, fmt.Errorf("op of unknown kind %T", o)
	}
}

// normalise fills in the default platform and writes one platform in one way, so that equal ops get equal keys.
func (f *Factory) normalise(p *pb.Platform) ocispecs.Platform {
	if p == nil {
		return f.platform
	}
	return platforms.Normalize(ocispecs.Platform{
		OS:           p.OS,
		Architecture: p.Architecture,
		Variant:      p.Variant,
		OSVersion:    p.OSVersion,
		OSFeatures:   p.OSFeatures,
	})
}

func exportOf(meta *pb.OpMetadata) solver.ExportHint {
	switch {
	case meta.GetExportCache() == nil:
		return solver.ExportAsAsked
	case meta.ExportCache.Value:
		return solver.ExportAlways
	}
	return solver.ExportNever
}

func groupOf(meta *pb.OpMetadata) *progress.Group {
	g := meta.GetProgressGroup()
	if g == nil {
		return nil
	}
	return &progress.Group{ID: g.Id, Name: g.Name, Weak: g.Weak}
}
