package daemon

import (
	"context"
	"errors"
	"fmt"

	apitypes "github.com/moby/buildkit/api/types"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	apicapspb "github.com/moby/buildkit/util/apicaps/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/frontend"
	"github.com/slipwaybuild/slipway/solver/ops"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Ping tells what works. What is not in the lists clients do without.
func (g *Gateway) Ping(context.Context, *gwpb.PingRequest) (*gwpb.PongResponse, error) {
	res := &gwpb.PongResponse{FrontendAPICaps: capsOf(frontendCaps()), LLBCaps: capsOf(ops.Caps())}
	for _, w := range g.bridge.Workers() {
		res.Workers = append(res.Workers, &apitypes.WorkerRecord{
			ID: w.ID, Labels: w.Labels, Platforms: pb.PlatformsFromSpec(w.Platforms),
		})
	}
	return res, nil
}

func capsOf(ids []string) []*apicapspb.APICap {
	list := make([]*apicapspb.APICap, len(ids))
	for i, id := range ids {
		list[i] = &apicapspb.APICap{ID: id, Enabled: true}
	}
	return list
}

// Solve loads a definition or runs a frontend. Nothing else runs before it is read, exported or, if asked for, evaluated.
func (g *Gateway) Solve(ctx context.Context, r *gwpb.SolveRequest) (*gwpb.SolveResponse, error) {
	return call(ctx, g, func(ctx context.Context) (*gwpb.SolveResponse, error) {
		req, err := solveRequest(r)
		if err != nil {
			return nil, err
		}
		res, err := g.client.Solve(ctx, req)
		if err != nil {
			return nil, err
		}
		if r.Evaluate && r.Frontend != "" {
			if err := evaluateAll(ctx, res); err != nil {
				return nil, err
			}
		}
		if res.Refs != nil && !r.AllowResultReturn {
			return nil, invalid("the result has several references, which this client does not know")
		}
		out, err := g.encode(res, r.AllowResultArrayRef)
		if err != nil {
			return nil, err
		}
		answer := &gwpb.SolveResponse{Result: out}
		if !r.AllowResultReturn {
			answer.Ref = out.GetRef().GetId() + out.GetRefDeprecated()
		}
		return answer, nil
	})
}

// solveRequest reads a request. What is asked for and not served is refused, never ignored.
func solveRequest(r *gwpb.SolveRequest) (gwclient.SolveRequest, error) {
	req := gwclient.SolveRequest{
		Evaluate: r.Evaluate, Definition: r.Definition, Frontend: r.Frontend,
		FrontendOpt: r.FrontendOpt, FrontendInputs: r.FrontendInputs,
		SourcePolicies: r.SourcePolicies,
	}
	switch {
	case r.Final:
		return req, grpcerrors.WrapCode(errors.New("results returned by Solve are not supported"), codes.Unimplemented)
	case r.Frontend != "" && len(r.Definition.GetDef()) > 0:
		return req, invalid(fmt.Sprintf("both the frontend %q and a definition", r.Frontend))
	}
	for _, im := range r.CacheImports {
		req.CacheImports = append(req.CacheImports, gwclient.CacheOptionsEntry{Type: im.GetType(), Attrs: im.GetAttrs()})
	}
	return req, nil
}

func evaluateAll(ctx context.Context, res *frontend.Result) error {
	return res.EachRef(func(ref gwclient.Reference) error { return ref.Evaluate(ctx) })
}

// Inputs returns the graphs that the request for the build came with.
func (g *Gateway) Inputs(context.Context, *gwpb.InputsRequest) (*gwpb.InputsResponse, error) {
	return &gwpb.InputsResponse{Definitions: g.inputs}, nil
}

// Warn tells the build's viewers.
func (g *Gateway) Warn(ctx context.Context, r *gwpb.WarnRequest) (*gwpb.WarnResponse, error) {
	return call(ctx, g, func(ctx context.Context) (*gwpb.WarnResponse, error) {
		return &gwpb.WarnResponse{}, g.bridge.Warn(ctx, digest.Digest(r.Digest), string(r.Short), gwclient.WarnOpts{
			Level: int(r.Level), SourceInfo: r.Info, Range: r.Ranges, Detail: r.Detail, URL: r.Url,
		})
	})
}

// Return ends the driver's part: what it returns is exported, or is the build's error.
func (g *Gateway) Return(ctx context.Context, r *gwpb.ReturnRequest) (*gwpb.ReturnResponse, error) {
	return call(ctx, g, func(context.Context) (*gwpb.ReturnResponse, error) {
		o, err := g.outcomeOf(r)
		if err != nil {
			return nil, err
		}
		if err := g.settle(o); err != nil {
			return nil, grpcerrors.WrapCode(err, codes.FailedPrecondition)
		}
		return &gwpb.ReturnResponse{}, nil
	})
}

func (g *Gateway) outcomeOf(r *gwpb.ReturnRequest) (o outcome, err error) {
	switch {
	case r.Error != nil && r.Error.Code != int32(codes.OK):
		// Whatever typed details the client knows of, it gets back from Solve.
		o.err = grpcerrors.FromGRPC(status.ErrorProto(r.Error))
	case r.Error != nil:
		err = invalid("returned an error that is none")
	case r.Result == nil:
		err = invalid("returned neither a result nor an error")
	default:
		o.result, err = g.decode(r.Result)
	}
	return o, err
}

func invalid(what string) error {
	return fmt.Errorf("%w: %s", ErrInvalidRequest, what)
}
