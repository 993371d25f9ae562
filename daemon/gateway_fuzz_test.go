package daemon

import (
	"testing"

	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
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
		&gwpb.ResolveSourceMetaRequest{Git: &gwpb.ResolveSourceGitRequest{ReturnObject: true}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		for kind := range byte(5) {
			f.Add(kind, b)
		}
	}
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		g := newGateway(t.Context(), &fakeBridge{}, frontend.Request{})
		defer g.end()
		switch ctx := t.Context(); kind {
		case 0:
			if r := new(gwpb.SolveRequest); proto.Unmarshal(b, r) == nil {
				_, _ = g.Solve(ctx, r)
			}
		case 1:
			if r := new(gwpb.ReturnRequest); proto.Unmarshal(b, r) == nil {
				if _, err := g.Return(ctx, r); err == nil && (g.outcome.result == nil) == (g.outcome.err == nil) {
					t.Errorf("returned %v and %v", g.outcome.result, g.outcome.err)
				}
			}
		case 2:
			if r := new(gwpb.ResolveSourceMetaRequest); proto.Unmarshal(b, r) == nil {
				_, _ = g.ResolveSourceMeta(ctx, r)
			}
		case 3:
			if r := new(gwpb.ResolveImageConfigRequest); proto.Unmarshal(b, r) == nil {
				_, _ = g.ResolveImageConfig(ctx, r)
			}
		case 4:
			if r := new(gwpb.WarnRequest); proto.Unmarshal(b, r) == nil {
				_, _ = g.Warn(ctx, r)
			}
		}
	})
}
