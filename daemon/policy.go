package daemon

import (
	"context"
	"fmt"

	"github.com/moby/buildkit/client/llb/sourceresolver"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	spb "github.com/moby/buildkit/sourcepolicy/pb"
	"github.com/moby/buildkit/sourcepolicy/policysession"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/daemon/sourcepolicy"
	"github.com/slipwaybuild/slipway/frontend"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/ops"
	"google.golang.org/protobuf/proto"
)

// newGuard makes what the build's sources are passed by.
func (b *build) newGuard(r Request) (*sourcepolicy.Guard, error) {
	o := sourcepolicy.Options{Resolve: b.resolveForPolicy}
	if r.SourcePolicy != nil {
		o.Policies = []*spb.Policy{r.SourcePolicy}
	}
	if r.PolicySession != "" {
		o.Verify = verifierOf(b.engine.sessions.GroupOf(r.Owner, r.PolicySession))
	}
	g, err := sourcepolicy.New(o)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalidRequest, err)
	}
	return g, nil
}

// verifierOf asks a session's policy. One that cannot be reached allows nothing.
func verifierOf(g *session.Group) sourcepolicy.Verifier {
	return func(ctx context.Context, r *policysession.CheckPolicyRequest) (res *policysession.CheckPolicyResponse, err error) {
		err = g.Any(ctx, func(ctx context.Context, c session.Caller) error {
			res, err = policysession.NewPolicyVerifierClient(c.Conn()).CheckPolicy(ctx, r)
			return err
		})
		return res, err
	}
}

// resolveForPolicy answers a client that wants to know more of a source before it allows it.
func (b *build) resolveForPolicy(ctx context.Context, r *gwpb.ResolveSourceMetaRequest) (*gwpb.ResolveSourceMetaResponse, error) {
	opt, err := resolveOptions(r)
	if err != nil {
		return nil, err
	}
	res, err := b.resolveSource(ctx, r.Source, opt)
	if err != nil {
		return nil, err
	}
	return encodeMeta(res), nil
}

// policyName tells policies apart in keys. What a client's session decides is only known to hold for this build.
func (b *build) policyName(policies ...*spb.Policy) string {
	name := ""
	for _, p := range policies {
		if len(p.GetRules()) == 0 {
			continue
		}
		dt, err := proto.MarshalOptions{Deterministic: true}.Marshal(p)
		if err != nil {
			return b.ref
		}
		name = digest.FromString(name + string(dt)).Encoded()
	}
	if b.policySession {
		name += " session of " + b.ref
	}
	return name
}

// restricted is a build under more policies than the request's.
type restricted struct {
	*build

	guard    *sourcepolicy.Guard
	loader   *ops.Loader
	policies []*spb.Policy
}

var _ frontend.Bridge = (*restricted)(nil)

// Restrict adds policies.
func (b *build) Restrict(policies []*spb.Policy) (frontend.Bridge, error) {
	return b.restrict(b.guard, b.loader, policies, policies)
}

// restrict puts more policies on top of a guard; all are those since the request.
func (b *build) restrict(g *sourcepolicy.Guard, l *ops.Loader, all, more []*spb.Policy) (*restricted, error) {
	guard, err := g.With(more...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalidRequest, err)
	}
	r := &restricted{build: b, guard: guard, policies: all}
	r.loader = l.Under(b.policyName(append([]*spb.Policy{b.policy}, all...)...), guard.Check, r.solveNested)
	return r, nil
}

// Restrict adds to the policies there are.
func (r *restricted) Restrict(policies []*spb.Policy) (frontend.Bridge, error) {
	all := append(r.policies[:len(r.policies):len(r.policies)], policies...)
	return r.build.restrict(r.guard, r.loader, all, policies)
}

// Solve loads a definition.
func (r *restricted) Solve(ctx context.Context, def *pb.Definition, evaluate bool) (frontend.Reference, error) {
	return r.solveFrom(ctx, r.loader, def, evaluate)
}

func (r *restricted) solveNested(ctx context.Context, def *pb.Definition) (solver.Result, error) {
	return r.solveNestedFrom(ctx, r.loader, def)
}

// Frontend runs a frontend by name, under the same policies.
func (r *restricted) Frontend(ctx context.Context, name string, req frontend.Request) (*frontend.Result, error) {
	return r.runFrontend(ctx, r, name, req)
}

// ResolveSource asks a source what it means now.
func (r *restricted) ResolveSource(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	return r.resolveUnder(ctx, r.guard, op, opt)
}
