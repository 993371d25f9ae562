package daemon

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/daemon/provenance"
	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/frontend"
	"github.com/slipwaybuild/slipway/frontend/gateway"
)

// provenance says where the result for one platform came from: a predicate as JSON and its type. The result must have been solved;
// it stays the build's. layers are those of the result as an output has them, nil for none.
func (b *build) provenance(_ context.Context, res *frontend.Result, platformID string, o provenance.Options, layers []ocispecs.Descriptor) ([]byte, string, error) {
	c, def, err := b.capture(res, platformID)
	if err != nil {
		return nil, "", err
	}
	if err := c.Complete(o); err != nil {
		return nil, "", err
	}
	p, err := c.Predicate(o, provenance.Run{
		ID: b.id, Started: b.began, Finished: time.Now(), Builder: b.engine.platform, Definition: def, Layers: layers,
		BaseLayers: baseLayers(res, platformID), Environment: b.engine.environment, Compat: cmp.Or(b.compat, exporter.Compat031),
	})
	if err != nil {
		return nil, "", fmt.Errorf("make provenance: %w", err)
	}
	data, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return nil, "", fmt.Errorf("write provenance: %w", err)
	}
	return data, o.Type(), nil
}

// baseLayers is how many layers the base image has, as the frontend tells it.
func baseLayers(res *frontend.Result, platformID string) int {
	var img ocispecs.Image
	if json.Unmarshal(platformValue(res.Metadata, exptypes.ExporterImageBaseConfigKey, platformID), &img) != nil {
		return 0
	}
	return len(img.RootFS.DiffIDs)
}

// capture collects what the result for one platform was made of: what its own graph used, and what the frontends used to write it.
func (b *build) capture(res *frontend.Result, platformID string) (*provenance.Capture, *pb.Definition, error) {
	ps, err := exptypes.ParsePlatforms(res.Metadata)
	if err != nil {
		return nil, nil, fmt.Errorf("result of the frontend: %w", err)
	}
	var all []ocispecs.Platform
	c := &provenance.Capture{}
	for _, p := range ps.Platforms {
		all = append(all, p.Platform)
		if p.ID == platformID {
			c.Platform = p.Platform
		}
	}
	final, _ := res.FindRef(platformID)
	own := referenceOf(final)
	var def *pb.Definition
	if own != nil {
		def = own.def
		c.Use(own.graph.Use())
		if own.scope != nil {
			c.Request, c.Root = own.scope.request, own.scope.root()
		}
	}
	results := map[*reference]bool{}
	_ = res.EachRef(func(r gwclient.Reference) error {
		results[referenceOf(r)] = true
		return nil
	})
	for _, r := range b.refs.all() {
		// What was only loaded was not used.
		if !results[r] && r.used() {
			c.Use(r.graph.Use())
		}
	}
	for _, i := range b.scopes.images(c.Platform, all) {
		c.AddImage(i)
	}
	return c, def, nil
}

// referenceOf is the build's own reference behind a frontend's; nil for nothing.
func referenceOf(r gwclient.Reference) *reference {
	if gr, ok := r.(*gateway.Reference); ok && gr != nil {
		own, _ := gr.Reference.(*reference)
		return own
	}
	return nil
}
