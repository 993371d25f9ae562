// Package dockerfile serves "dockerfile.v0": upstream's Dockerfile frontend, driven through our bridge. The language is
// upstream's and follows it by upgrading the module.
package dockerfile

import (
	"context"

	"github.com/moby/buildkit/frontend/dockerfile/builder"
	"github.com/slipwaybuild/slipway/frontend"
	"github.com/slipwaybuild/slipway/frontend/gateway"
)

// Name is what requests call this frontend.
const Name = "dockerfile.v0"

// Frontend builds Dockerfiles.
type Frontend struct {
	caps gateway.Caps
}

// New returns the frontend; it writes LLB that uses no capability beyond caps.
func New(caps gateway.Caps) *Frontend { return &Frontend{caps: caps} }

var _ frontend.Frontend = (*Frontend)(nil)

// Build turns a Dockerfile into graphs. Errors in it carry their source lines.
func (f *Frontend) Build(ctx context.Context, b frontend.Bridge, r frontend.Request) (*frontend.Result, error) {
	return builder.Build(ctx, gateway.NewClient(b, r, f.caps))
}
