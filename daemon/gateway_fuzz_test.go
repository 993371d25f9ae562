package daemon

import (
	"context"
	"testing"

	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/slipwaybuild/slipway/frontend"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
)

// FuzzDriver feeds the bytes of requests to every call that reads more than an id. None may panic, and what a Return accepts
// must be an outcome.
func FuzzDriver(f *testing.F) {
	for _, m := range []proto.Message{
		&gwpb.SolveRequest{Definition: someDefinition, AllowResultReturn: true},
		&gwpb.SolveRequest{Frontend: "f", FrontendOpt: map[string]string{"k": "v"}, CacheImports: []*gwpb.CacheOptionsEntry{nil}},
		&gwpb.ReturnRequest{Result: refsResult(map[string]*gwpb.Ref{"x": nil})},
		&gwpb.ReturnRequest{Result: oldRefsResult(map[string]string{"x": ""})},
		&gwpb.ReturnRequest{Error: &spb.Status{Code: 2, Message: "m"}},
		&gwpb.ResolveSourceMetaRequest{Git: &gwpb.ResolveSourceGitRequest{ReturnObject: true}, Source: &pb.SourceOp{Identifier: "git://x"}},
		&gwpb.ResolveSourceMetaRequest{HTTP: &gwpb.ResolveSourceHTTPRequest{ChecksumRequest: &gwpb.ChecksumRequest{Algo: 9}}, Source: &pb.SourceOp{Identifier: "http://x"}},
		&gwpb.ReadFileRequest{Ref: "r", FilePath: "f", Range: &gwpb.FileRange{Offset: 1, Length: 2}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		for kind := range byte(len(calls)) {
			f.Add(kind, b)
		}
	}
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		g := newGateway(t.Context(), &fakeBridge{}, frontend.Request{})
		defer g.end()
		calls[int(kind)%len(calls)](t.Context(), g, b)
		if o := g.outcome; o.result != nil && o.err != nil {
			t.Errorf("returned %v and %v", o.result, o.err)
		}
	})
}

// calls are those of a driver that read more than nothing.
var calls = []func(context.Context, *Gateway, []byte){
	decoded[gwpb.SolveRequest]((*Gateway).Solve),
	decoded[gwpb.ReturnRequest]((*Gateway).Return),
	decoded[gwpb.ResolveSourceMetaRequest]((*Gateway).ResolveSourceMeta),
	decoded[gwpb.ResolveImageConfigRequest]((*Gateway).ResolveImageConfig),
	decoded[gwpb.WarnRequest]((*Gateway).Warn),
	decoded[gwpb.ReadFileRequest](withRef((*Gateway).ReadFile, func(r *gwpb.ReadFileRequest, id string) { r.Ref = id })),
	decoded[gwpb.ReadDirRequest](withRef((*Gateway).ReadDir, func(r *gwpb.ReadDirRequest, id string) { r.Ref = id })),
	decoded[gwpb.StatFileRequest](withRef((*Gateway).StatFile, func(r *gwpb.StatFileRequest, id string) { r.Ref = id })),
	decoded[gwpb.EvaluateRequest](withRef((*Gateway).Evaluate, func(r *gwpb.EvaluateRequest, id string) { r.Ref = id })),
	decoded[gwpb.InputsRequest]((*Gateway).Inputs),
	decoded[gwpb.PingRequest]((*Gateway).Ping),
}

// decoded makes a call of the bytes of its request; what is no request is no call.
func decoded[T any, P interface {
	*T
	proto.Message
}, Res any](call func(*Gateway, context.Context, P) (Res, error)) func(context.Context, *Gateway, []byte) {
	return func(ctx context.Context, g *Gateway, b []byte) {
		if r := P(new(T)); proto.Unmarshal(b, r) == nil {
			_, _ = call(g, ctx, r) // any error will do
		}
	}
}

// withRef has a call read a reference that there is.
func withRef[P, Res any](call func(*Gateway, context.Context, P) (Res, error), set func(P, string)) func(*Gateway, context.Context, P) (Res, error) {
	return func(g *Gateway, ctx context.Context, r P) (Res, error) {
		res, err := g.Solve(ctx, &gwpb.SolveRequest{Definition: someDefinition, AllowResultReturn: true, AllowResultArrayRef: true})
		if err == nil {
			set(r, res.Result.GetRef().GetId())
		}
		return call(g, ctx, r)
	}
}
