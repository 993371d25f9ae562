package daemon

import (
	"context"
	"fmt"
	"sync/atomic"

	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/slipwaybuild/slipway/frontend"
	"github.com/slipwaybuild/slipway/frontend/gateway"
	"github.com/slipwaybuild/slipway/session/interceptors"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// maxPrograms bounds how many frontends of one build are programs at a time: one that runs itself must meet an end.
const maxPrograms = 32

// program is a gateway whose driver is a frontend's program.
type program struct {
	gw      *Gateway
	options interceptors.Options
	count   *atomic.Int32
}

var _ gateway.Driver = (*program)(nil)

// serve opens a bridge to a frontend's program.
func (e *Engine) serve(ctx context.Context, b frontend.Bridge, r frontend.Request) (gateway.Driver, error) {
	p := &program{options: interceptors.Options{Logger: e.log, Tracer: e.tracer}, count: &atomic.Int32{}}
	if own := buildBehind(b); own != nil {
		p.count = &own.programs
	}
	if n := p.count.Add(1); n > maxPrograms {
		p.count.Add(-1)
		return nil, grpcerrors.WrapCode(fmt.Errorf("a build runs %d frontends at most at a time: does one run itself?", maxPrograms), codes.ResourceExhausted)
	}
	p.gw = newGateway(ctx, b, r)
	return p, nil
}

// Server makes a server that answers as the daemon's own does.
func (p *program) Server() *grpc.Server {
	s := grpc.NewServer(append(interceptors.Server(p.options),
		grpc.ChainUnaryInterceptor(grpcerrors.UnaryServerInterceptor, codedCall),
		grpc.ChainStreamInterceptor(grpcerrors.StreamServerInterceptor, codedStream),
		grpc.WaitForHandlers(true),
	)...)
	gwpb.RegisterLLBBridgeServer(s, p.gw)
	healthpb.RegisterHealthServer(s, health.NewServer())
	return s
}

// Returned is closed when the program has returned its result.
func (p *program) Returned() <-chan struct{} { return p.gw.returned }

// Wait returns the result.
func (p *program) Wait(ctx context.Context) (*frontend.Result, error) { return p.gw.wait(ctx) }

// End ends the program's calls.
func (p *program) End() error {
	defer p.count.Add(-1)
	return p.gw.end()
}

func codedCall(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	res, err := handle(ctx, req)
	if err != nil {
		return nil, WithCode(err)
	}
	return res, nil
}

func codedStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if err := handle(srv, stream); err != nil {
		return WithCode(err)
	}
	return nil
}
