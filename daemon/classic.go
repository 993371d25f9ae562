package daemon

import (
	"context"
	"fmt"

	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/frontend"
	"github.com/slipwaybuild/slipway/frontend/classic"
	"github.com/slipwaybuild/slipway/frontend/gateway"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/ops"
)

// solveClassic runs the classic builder, which makes its images while it builds.
func (b *build) solveClassic(ctx context.Context, r Request) (*frontend.Result, error) {
	f := classic.New(classic.Options{
		Client: *r.Classic, Caps: gateway.NewCaps(ops.Caps(), frontendCaps()), Images: b.stepImages, Steps: b.watches,
	})
	req := frontendRequest(r)
	return f.Build(ctx, b.scoped(b, nil, b.engine.producers.request(classic.Name, req)), req)
}

// finishClassic names the image that the classic builder ended with.
func (b *build) finishClassic(ctx context.Context, r Request, res *frontend.Result) (*Response, error) {
	id := digest.Digest(res.Metadata[classic.KeyImageID])
	if err := b.stepImages.name(ctx, id, res, r.Classic.Names); err != nil {
		return nil, err
	}
	return &Response{Exporter: map[string]string{exptypes.ExporterImageConfigDigestKey: id.String(), exptypes.ExporterImageDigestKey: id.String()}}, nil
}

// stackOfResult is the file system of a result that is for one platform.
func (b *build) stackOfResult(ctx context.Context, res *frontend.Result) (*layers.Ref, error) {
	if res.Ref == nil {
		return b.engine.empty, nil
	}
	stack, err := b.stackOf(ctx, res.Ref)
	if err != nil {
		return nil, fmt.Errorf("file system of the image: %w", err)
	}
	return stack, nil
}
