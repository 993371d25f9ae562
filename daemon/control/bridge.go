package control

import (
	"context"

	"github.com/moby/buildkit/client/buildid"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/slipwaybuild/slipway/daemon"
	"github.com/slipwaybuild/slipway/session/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Bridge is the LLBBridge service of builds that their clients drive. Which build a call is for, its metadata says. What no
// build serves yet answers codes.Unimplemented.
type Bridge struct {
	gwpb.UnimplementedLLBBridgeServer

	engine *daemon.Engine
}

// NewBridge returns the service.
func NewBridge(e *daemon.Engine) *Bridge { return &Bridge{engine: e} }

// Register puts the service on a server.
func (b *Bridge) Register(g *grpc.Server) { gwpb.RegisterLLBBridgeServer(g, b) }

// forward hands a call to the build it is for.
func forward[Req, Res any](ctx context.Context, b *Bridge, r Req, call func(*daemon.Gateway, context.Context, Req) (Res, error)) (res Res, err error) {
	gw, err := b.find(ctx)
	if err == nil {
		res, err = call(gw, ctx, r)
	}
	if err != nil {
		return res, withCode(err)
	}
	return res, nil
}

// find finds the build that a call is for.
func (b *Bridge) find(ctx context.Context) (*daemon.Gateway, error) {
	id := buildid.FromIncomingContext(ctx)
	if id == "" {
		return nil, status.Error(codes.InvalidArgument, "the call's metadata names no build")
	}
	return b.engine.Gateway(ctx, peer.FromContext(ctx), id)
}
