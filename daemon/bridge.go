package daemon

import (
	"context"
	"fmt"

	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/frontend"
	"github.com/slipwaybuild/slipway/frontend/gateway"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/ops"
	"github.com/slipwaybuild/slipway/solver/progress"
)

var _ frontend.Bridge = (*build)(nil)

// Solve loads a definition.
func (b *build) Solve(ctx context.Context, def *pb.Definition, evaluate bool) (frontend.Reference, error) {
	return b.solveFrom(ctx, b.loader, def, evaluate)
}

func (b *build) solveFrom(ctx context.Context, l *ops.Loader, def *pb.Definition, evaluate bool) (frontend.Reference, error) {
	graph, err := l.Load(ctx, def)
	if err != nil {
		return nil, withSource(err, def, digest.Digest(""))
	}
	ref := b.refs.add(&reference{build: b, def: def, graph: graph})
	if evaluate {
		if err := ref.Evaluate(ctx); err != nil {
			return nil, err
		}
	}
	return ref, nil
}

// solveNested serves build ops: graphs found inside a result.
func (b *build) solveNested(ctx context.Context, def *pb.Definition) (solver.Result, error) {
	return b.solveNestedFrom(ctx, b.loader, def)
}

func (b *build) solveNestedFrom(ctx context.Context, l *ops.Loader, def *pb.Definition) (solver.Result, error) {
	graph, err := l.Load(ctx, def)
	if err != nil || graph.Edge().Vertex == nil {
		return nil, err
	}
	return b.solver.Result(ctx, graph.Edge())
}

// Frontend runs a frontend by name.
func (b *build) Frontend(ctx context.Context, name string, r frontend.Request) (*frontend.Result, error) {
	return b.runFrontend(ctx, b, name, r)
}

func (b *build) runFrontend(ctx context.Context, bridge frontend.Bridge, name string, r frontend.Request) (*frontend.Result, error) {
	return b.runFrontendFor(ctx, bridge, nil, name, r)
}

// runFrontendFor runs a frontend over a bridge for the frontend whose scope is given; nil is the client.
func (b *build) runFrontendFor(ctx context.Context, bridge frontend.Bridge, parent *scope, name string, r frontend.Request) (*frontend.Result, error) {
	f, ok := b.engine.frontends[name]
	if !ok {
		return nil, fmt.Errorf("%w: unknown frontend %q", ErrInvalidRequest, name)
	}
	if parent == nil || b.gateway != nil {
		b.warnOfArgs(r.Opts)
		b.allowLeaks(r.Opts) // the client's own words, not those of a frontend that calls another
	}
	r.Opts = b.attests.forFrontend(r.Opts)
	res, err := f.Build(ctx, b.scoped(bridge, parent, b.engine.producers.request(name, r)), r)
	if err != nil {
		return nil, err
	}
	b.engine.producers.add(b, res)
	return res, nil
}

// Warn tells the build's viewers.
func (b *build) Warn(_ context.Context, step digest.Digest, msg string, opts gwclient.WarnOpts) error {
	w := &progress.Warning{Vertex: step, Level: opts.Level, Short: []byte(msg), Detail: opts.Detail, URL: opts.URL}
	if i := opts.SourceInfo; i != nil {
		w.SourceInfo = &progress.SourceInfo{Filename: i.Filename, Language: i.Language, Data: i.Data}
	}
	for _, r := range opts.Range {
		w.Ranges = append(w.Ranges, progress.Range{
			StartLine: r.GetStart().GetLine(), StartChar: r.GetStart().GetCharacter(),
			EndLine: r.GetEnd().GetLine(), EndChar: r.GetEnd().GetCharacter(),
		})
	}
	b.sink.Append(progress.Event{Warning: w})
	return nil
}

// Session is the id of the build's first session.
func (b *build) Session() string {
	if ids := b.sessions.IDs(); len(ids) > 0 {
		return ids[0]
	}
	return ""
}

// Workers describes the one worker there is.
func (b *build) Workers() []gwclient.WorkerInfo {
	w := b.engine.Worker()
	return []gwclient.WorkerInfo{{ID: w.ID, Labels: w.Labels, Platforms: w.Platforms}}
}

// Product names the engine.
func (b *build) Product() string { return Product }

func resultOf(ref frontend.Reference) *frontend.Result {
	res := gwclient.NewResult()
	res.SetRef(&gateway.Reference{Reference: ref})
	return res
}
