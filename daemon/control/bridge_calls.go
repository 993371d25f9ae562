package control

import (
	"context"

	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/slipwaybuild/slipway/daemon"
)

// Ping tells what works.
func (b *Bridge) Ping(ctx context.Context, r *gwpb.PingRequest) (*gwpb.PongResponse, error) {
	return forward(ctx, b, r, (*daemon.Gateway).Ping)
}

// ResolveImageConfig resolves an image to a digest and its config.
func (b *Bridge) ResolveImageConfig(ctx context.Context, r *gwpb.ResolveImageConfigRequest) (*gwpb.ResolveImageConfigResponse, error) {
	return forward(ctx, b, r, (*daemon.Gateway).ResolveImageConfig)
}

// ResolveSourceMeta asks a source what it means now.
func (b *Bridge) ResolveSourceMeta(ctx context.Context, r *gwpb.ResolveSourceMetaRequest) (*gwpb.ResolveSourceMetaResponse, error) {
	return forward(ctx, b, r, (*daemon.Gateway).ResolveSourceMeta)
}

// Solve loads a definition or runs a frontend.
func (b *Bridge) Solve(ctx context.Context, r *gwpb.SolveRequest) (*gwpb.SolveResponse, error) {
	return forward(ctx, b, r, (*daemon.Gateway).Solve)
}

// ReadFile reads a file of a reference.
func (b *Bridge) ReadFile(ctx context.Context, r *gwpb.ReadFileRequest) (*gwpb.ReadFileResponse, error) {
	return forward(ctx, b, r, (*daemon.Gateway).ReadFile)
}

// ReadDir lists a directory of a reference.
func (b *Bridge) ReadDir(ctx context.Context, r *gwpb.ReadDirRequest) (*gwpb.ReadDirResponse, error) {
	return forward(ctx, b, r, (*daemon.Gateway).ReadDir)
}

// StatFile describes a file of a reference.
func (b *Bridge) StatFile(ctx context.Context, r *gwpb.StatFileRequest) (*gwpb.StatFileResponse, error) {
	return forward(ctx, b, r, (*daemon.Gateway).StatFile)
}

// Evaluate runs what a reference stands for.
func (b *Bridge) Evaluate(ctx context.Context, r *gwpb.EvaluateRequest) (*gwpb.EvaluateResponse, error) {
	return forward(ctx, b, r, (*daemon.Gateway).Evaluate)
}

// Inputs returns the graphs that the build was asked for with.
func (b *Bridge) Inputs(ctx context.Context, r *gwpb.InputsRequest) (*gwpb.InputsResponse, error) {
	return forward(ctx, b, r, (*daemon.Gateway).Inputs)
}

// Warn tells the build's viewers.
func (b *Bridge) Warn(ctx context.Context, r *gwpb.WarnRequest) (*gwpb.WarnResponse, error) {
	return forward(ctx, b, r, (*daemon.Gateway).Warn)
}

// Return gives the build its outcome.
func (b *Bridge) Return(ctx context.Context, r *gwpb.ReturnRequest) (*gwpb.ReturnResponse, error) {
	return forward(ctx, b, r, (*daemon.Gateway).Return)
}

// NewContainer composes a container.
func (b *Bridge) NewContainer(ctx context.Context, r *gwpb.NewContainerRequest) (*gwpb.NewContainerResponse, error) {
	return forward(ctx, b, r, (*daemon.Gateway).NewContainer)
}

// ReleaseContainer ends a container.
func (b *Bridge) ReleaseContainer(ctx context.Context, r *gwpb.ReleaseContainerRequest) (*gwpb.ReleaseContainerResponse, error) {
	return forward(ctx, b, r, (*daemon.Gateway).ReleaseContainer)
}

// ReadFileContainer reads a file in a container.
func (b *Bridge) ReadFileContainer(ctx context.Context, r *gwpb.ReadFileRequest) (*gwpb.ReadFileResponse, error) {
	return forward(ctx, b, r, (*daemon.Gateway).ReadFileContainer)
}

// ReadDirContainer lists a directory in a container.
func (b *Bridge) ReadDirContainer(ctx context.Context, r *gwpb.ReadDirRequest) (*gwpb.ReadDirResponse, error) {
	return forward(ctx, b, r, (*daemon.Gateway).ReadDirContainer)
}

// StatFileContainer describes a file in a container.
func (b *Bridge) StatFileContainer(ctx context.Context, r *gwpb.StatFileRequest) (*gwpb.StatFileResponse, error) {
	return forward(ctx, b, r, (*daemon.Gateway).StatFileContainer)
}

// ExecProcess runs processes in containers.
func (b *Bridge) ExecProcess(stream gwpb.LLBBridge_ExecProcessServer) error {
	gw, err := b.find(stream.Context())
	if err == nil {
		err = gw.ExecProcess(stream)
	}
	if err != nil {
		return withCode(err)
	}
	return nil
}
