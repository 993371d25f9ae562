// Package gateway lets programs written against BuildKit's gateway client build through a [frontend.Bridge], and serves the
// "gateway.v0" frontend.
package gateway

import (
	"context"
	"fmt"
	"maps"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	spb "github.com/moby/buildkit/sourcepolicy/pb"
	"github.com/moby/buildkit/util/apicaps"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/frontend"
)

// Caps are the capability sets a bridge advertises: to a client, promises.
type Caps struct {
	LLB      apicaps.CapSet
	Frontend apicaps.CapSet
}

// Client is BuildKit's gateway client over a bridge, for one request to one frontend.
type Client struct {
	bridge frontend.Bridge
	inputs map[string]*pb.Definition
	opts   gwclient.BuildOpts
}

var _ gwclient.Client = (*Client)(nil)

// NewClient returns a client for one request. The options are copied: frontends write into theirs.
func NewClient(b frontend.Bridge, r frontend.Request, caps Caps) *Client {
	opts := maps.Clone(r.Opts)
	if opts == nil {
		opts = map[string]string{}
	}
	return &Client{
		bridge: b,
		inputs: r.Inputs,
		opts: gwclient.BuildOpts{
			Opts:      opts,
			SessionID: b.Session(),
			Workers:   b.Workers(),
			Product:   b.Product(),
			LLBCaps:   caps.LLB,
			Caps:      caps.Frontend,
		},
	}
}

// BuildOpts tells a frontend its options and what the engine can do.
func (c *Client) BuildOpts() gwclient.BuildOpts { return c.opts }

// Solve loads a definition or runs another frontend.
func (c *Client) Solve(ctx context.Context, req gwclient.SolveRequest) (*gwclient.Result, error) {
	bridge, err := c.under(req.SourcePolicies)
	if err != nil {
		return nil, err
	}
	c.bridge.ImportCaches(req.CacheImports)
	if req.Frontend != "" {
		if req.Definition != nil && len(req.Definition.Def) > 0 {
			return nil, fmt.Errorf("a solve request names the frontend %q and also holds a definition", req.Frontend)
		}
		return bridge.Frontend(ctx, req.Frontend, frontend.Request{
			Opts:         req.FrontendOpt,
			Inputs:       req.FrontendInputs,
			CacheImports: req.CacheImports,
		})
	}
	res := gwclient.NewResult()
	if req.Definition == nil || len(req.Definition.Def) == 0 {
		return res, nil
	}
	ref, err := bridge.Solve(ctx, req.Definition, req.Evaluate)
	if err != nil {
		return nil, err
	}
	res.SetRef(&Reference{Reference: ref})
	return res, nil
}

// ResolveSourceMetadata asks a source what it means now.
func (c *Client) ResolveSourceMetadata(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	bridge, err := c.under(opt.SourcePolicies)
	if err != nil {
		return nil, err
	}
	return bridge.ResolveSource(ctx, op, opt)
}

// under is the bridge with the policies of one request.
func (c *Client) under(policies []*spb.Policy) (frontend.Bridge, error) {
	if len(policies) == 0 {
		return c.bridge, nil
	}
	return c.bridge.Restrict(policies)
}

// ResolveImageConfig resolves an image reference to a digest and its config.
func (c *Client) ResolveImageConfig(ctx context.Context, ref string, opt sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	return sourceresolver.NewImageMetaResolver(c).ResolveImageConfig(ctx, ref, opt)
}

// Inputs returns the request's inputs as states.
func (c *Client) Inputs(context.Context) (map[string]llb.State, error) {
	states := make(map[string]llb.State, len(c.inputs))
	for name, def := range c.inputs {
		op, err := llb.NewDefinitionOp(def)
		if err != nil {
			return nil, fmt.Errorf("load input %q: %w", name, err)
		}
		states[name] = llb.NewState(op)
	}
	return states, nil
}

// NewContainer starts an interactive container.
func (c *Client) NewContainer(ctx context.Context, req gwclient.NewContainerRequest) (gwclient.Container, error) {
	return c.bridge.NewContainer(ctx, req)
}

// Warn tells the build's viewers.
func (c *Client) Warn(ctx context.Context, step digest.Digest, msg string, opts gwclient.WarnOpts) error {
	return c.bridge.Warn(ctx, step, msg, opts)
}

// Reference is a bridge's reference as a gateway reference.
type Reference struct {
	frontend.Reference
}

var _ gwclient.Reference = (*Reference)(nil)

// ToState returns the graph behind the reference as a state to build on.
func (r *Reference) ToState() (llb.State, error) {
	def := r.Definition()
	if def == nil || len(def.Def) == 0 {
		return llb.Scratch(), nil
	}
	op, err := llb.NewDefinitionOp(def)
	if err != nil {
		return llb.State{}, fmt.Errorf("load the definition of a reference: %w", err)
	}
	return llb.NewState(op), nil
}
