package sourcepolicy

import (
	"context"
	"errors"
	"fmt"
	"maps"

	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	spb "github.com/moby/buildkit/sourcepolicy/pb"
	"github.com/moby/buildkit/sourcepolicy/policysession"
)

// maxAsked is how often a client is asked about one source: it may want to know more, or replace it, without end.
const maxAsked = 10

// RefusedError is a source that the client's session does not allow. It wraps [ErrDenied].
type RefusedError struct {
	Identifier string
	Action     spb.PolicyAction
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("source %q not allowed by policy: action %s", e.Identifier, e.Action)
}

// Unwrap returns [ErrDenied].
func (e *RefusedError) Unwrap() error { return ErrDenied }

// ask asks the client until it decides. It returns the source to use instead, nil to use op. asked counts over all the calls for
// one source.
func (g *Guard) ask(ctx context.Context, op *pb.SourceOp, p *pb.Platform, asked *int) (*pb.SourceOp, error) {
	req := &policysession.CheckPolicyRequest{Platform: p, Source: &gwpb.ResolveSourceMetaResponse{Source: op.CloneVT()}}
	for {
		if *asked++; *asked > maxAsked {
			return nil, fmt.Errorf("source %q: too many policy requests", op.Identifier)
		}
		res, err := g.verify(ctx, req)
		if err != nil {
			return nil, fmt.Errorf("ask the client's policy about source %q: %w", op.Identifier, err)
		}
		if more := res.GetRequest(); more != nil {
			if req.Source, err = g.more(ctx, op, more); err != nil {
				return nil, err
			}
			continue
		}
		return decide(op, res.GetDecision())
	}
}

// more finds out what the client wants to know. It may ask about the source in question only: another would not have passed the
// rules.
func (g *Guard) more(ctx context.Context, op *pb.SourceOp, r *gwpb.ResolveSourceMetaRequest) (*gwpb.ResolveSourceMetaResponse, error) {
	if got := r.GetSource().GetIdentifier(); got != op.Identifier {
		return nil, fmt.Errorf("policy requested different source identifier: %q != %q", got, op.Identifier)
	}
	if !maps.Equal(r.Source.Attrs, op.Attrs) {
		return nil, fmt.Errorf("policy requested different source attrs for %q", op.Identifier)
	}
	if len(r.SourcePolicies) > 0 {
		return nil, errors.New("policy requested a source under further policies")
	}
	res, err := g.resolve(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("error resolving source metadata from policy request: %w", err)
	}
	return res, nil
}

func decide(op *pb.SourceOp, d *policysession.DecisionResponse) (*pb.SourceOp, error) {
	if d == nil {
		return nil, fmt.Errorf("source %q: no decision in policy response", op.Identifier)
	}
	switch d.Action {
	case spb.PolicyAction_ALLOW:
		return nil, nil
	case spb.PolicyAction_CONVERT:
		if d.Update == nil {
			return nil, fmt.Errorf("source %q: convert action requires updated source", op.Identifier)
		}
		return d.Update, nil
	}
	// The client's words are a typed detail of the error, from which it prints them.
	return nil, policysession.WrapDenyMessages(&RefusedError{Identifier: op.Identifier, Action: d.Action}, d.DenyMessages)
}
