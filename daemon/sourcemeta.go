package daemon

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/solver/pb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/daemon/sourcepolicy"
	"github.com/slipwaybuild/slipway/solver/progress"
	"github.com/slipwaybuild/slipway/solver/source"
)

// metaResolver answers what one scheme of source means now.
type metaResolver func(ctx context.Context, env source.Env, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error)

// ResolveSource asks a source what it means now, shown as a step of its own if the frontend named one.
func (b *build) ResolveSource(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	return b.resolveUnder(ctx, b.guard, op, opt)
}

// resolveUnder resolves what a policy leaves of a source.
func (b *build) resolveUnder(ctx context.Context, g *sourcepolicy.Guard, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	if op == nil {
		return nil, fmt.Errorf("%w: no source to resolve", ErrInvalidRequest)
	}
	op, err := g.Check(ctx, op, platformAsked(opt))
	if err != nil {
		return nil, fmt.Errorf("could not resolve image due to policy: %w", err)
	}
	return b.resolveSource(ctx, op, opt)
}

// platformAsked is the platform that a question names; nil if it names none.
func platformAsked(opt sourceresolver.Opt) *pb.Platform {
	switch {
	case opt.ImageOpt != nil && opt.ImageOpt.Platform != nil:
		return pb.PlatformFromSpec(*opt.ImageOpt.Platform)
	case opt.OCILayoutOpt != nil && opt.OCILayoutOpt.Platform != nil:
		return pb.PlatformFromSpec(*opt.OCILayoutOpt.Platform)
	}
	return nil
}

// resolveSource asks no policy.
func (b *build) resolveSource(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	scheme, _, _ := strings.Cut(op.Identifier, "://")
	resolve, ok := b.engine.resolvers[scheme]
	if scheme == "local" {
		// There is nothing to say of it before it is synced.
		return &sourceresolver.MetaResponse{Op: op}, nil
	}
	if !ok {
		return nil, fmt.Errorf("%w: source %q cannot be resolved", ErrInvalidRequest, op.Identifier)
	}
	name := opt.LogName
	if name == "" {
		name = "resolve " + op.Identifier
	}
	var res *sourceresolver.MetaResponse
	err := b.step(ctx, name, func(ctx context.Context, p progress.Writer) (err error) {
		res, err = resolve(ctx, source.Env{Sessions: b.groupNow, Progress: p, Answers: &b.answers}, op, opt)
		return err
	})
	return res, err
}

// platformOf is the platform a question is about.
func (e *Engine) platformOf(p *ocispecs.Platform) ocispecs.Platform {
	if p == nil {
		return e.platform
	}
	return platforms.Normalize(*p)
}
