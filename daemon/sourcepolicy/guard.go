package sourcepolicy

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"

	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	spb "github.com/moby/buildkit/sourcepolicy/pb"
	"github.com/moby/buildkit/sourcepolicy/policysession"
	"github.com/slipwaybuild/slipway/solver/keylock"
)

// Verifier asks the client's session about a source.
type Verifier func(context.Context, *policysession.CheckPolicyRequest) (*policysession.CheckPolicyResponse, error)

// Resolver finds out what a verifier wants to know of a source before it decides. It asks no policy.
type Resolver func(context.Context, *gwpb.ResolveSourceMetaRequest) (*gwpb.ResolveSourceMetaResponse, error)

// Options goes with [New].
type Options struct {
	// Policies are the request's rules.
	Policies []*spb.Policy
	// Verify may be nil: then the rules alone decide.
	Verify Verifier
	// Resolve serves Verify, and is needed with it.
	Resolve Resolver
}

// Guard is what one build's sources are passed by. Safe for concurrent use.
type Guard struct {
	rules   *Rules
	verify  Verifier
	resolve Resolver

	asking  keylock.Locks[[sha256.Size]byte] // by question, too
	mu      sync.Mutex
	allowed map[[sha256.Size]byte]*pb.SourceOp // by question: a client is asked once about the same thing
}

// New checks the policies. Errors wrap [ErrInvalid].
func New(o Options) (*Guard, error) {
	rules, err := Compile(o.Policies...)
	if err != nil {
		return nil, err
	}
	return newGuard(rules, o.Verify, o.Resolve), nil
}

func newGuard(rules *Rules, v Verifier, r Resolver) *Guard {
	return &Guard{rules: rules, verify: v, resolve: r, allowed: map[[sha256.Size]byte]*pb.SourceOp{}}
}

// With returns a guard that also holds sources against more policies. It shares no memory with g.
func (g *Guard) With(policies ...*spb.Policy) (*Guard, error) {
	more, err := Compile(policies...)
	if err != nil {
		return nil, err
	}
	return newGuard(g.rules.and(more), g.verify, g.resolve), nil
}

// Open tells whether every source may pass.
func (g *Guard) Open() bool { return g.rules.Empty() && g.verify == nil }

// Check returns what is to be used in place of a source, or why none is. op is not changed; p is the platform it is wanted for,
// and may be nil.
func (g *Guard) Check(ctx context.Context, op *pb.SourceOp, p *pb.Platform) (*pb.SourceOp, error) {
	if g.Open() {
		return op, nil
	}
	written := op.GetIdentifier()
	if op = op.CloneVT(); op == nil {
		return nil, fmt.Errorf("%w: no source to hold against it", ErrInvalid)
	}
	op.Identifier = canonical(written)
	asked := op.Identifier
	question := questionOf(written, op, p)
	unlock, err := g.asking.Lock(ctx, question)
	if err != nil {
		return nil, err
	}
	defer unlock()
	g.mu.Lock()
	known := g.allowed[question]
	g.mu.Unlock()
	if known != nil {
		return known.CloneVT(), nil
	}
	if err := g.check(ctx, op, p); err != nil {
		return nil, err
	}
	if op.Identifier == asked {
		// Spelled otherwise it may mean the same to a policy and not to its source: of git's, another transport.
		op.Identifier = written
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.allowed[question] = op.CloneVT()
	return op, nil
}

func questionOf(written string, op *pb.SourceOp, p *pb.Platform) [sha256.Size]byte {
	// Quoted, no two lists of strings look alike, and maps are written in the order of their keys.
	return sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %q %q %q", written, op.Attrs,
		p.GetOS(), p.GetArchitecture(), p.GetVariant(), p.GetOSVersion(), p.GetOSFeatures()))
}

// check holds op against the rules, then asks the client. A client that replaces a source has the replacement checked anew.
func (g *Guard) check(ctx context.Context, op *pb.SourceOp, p *pb.Platform) error {
	for asked := 0; ; {
		if err := g.rules.Apply(op); err != nil {
			return err
		}
		if g.verify == nil {
			return nil
		}
		update, err := g.ask(ctx, op, p, &asked)
		if err != nil || update == nil {
			return err
		}
		op.Identifier, op.Attrs = canonical(update.Identifier), update.CloneVT().Attrs
	}
}
