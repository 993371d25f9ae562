package daemon

import (
	"bytes"
	"context"
	"sync"

	"github.com/in-toto/in-toto-golang/in_toto"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/daemon/provenance"
	"github.com/slipwaybuild/slipway/frontend"
)

// predicateType is the annotation of attachments that clients find predicates by.
const predicateType = "in-toto.io/predicate-type"

// recordProvenance begins to put where the solved result came from beside the build's record, all that can be told, whatever the
// client asked for in its outputs. The function it returns waits until that is done: it is for the disk that one waits, so outputs are
// written meanwhile. A second call does nothing.
func (b *build) recordProvenance(ctx context.Context, res *frontend.Result) (wait func()) {
	if b.provenanceRecorded || !b.record.Recorded() {
		return func() {}
	}
	b.provenanceRecorded = true
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := b.attachProvenance(ctx, res); err != nil && ctx.Err() == nil {
			b.engine.log.Warn("record where the result of a build came from", "ref", b.ref, "error", err)
		}
	})
	return wg.Wait
}

func (b *build) attachProvenance(ctx context.Context, res *frontend.Result) error {
	ps, err := exptypes.ParsePlatforms(res.Metadata)
	if err != nil {
		return err
	}
	o := provenance.Options{Max: true}
	if asked := b.attests.provenance; asked != nil {
		o.BuilderID = asked.BuilderID
	}
	for _, p := range ps.Platforms {
		if ref, _ := res.FindRef(p.ID); referenceOf(ref) == nil {
			continue // nothing came from nowhere
		}
		data, kind, err := b.provenance(ctx, res, p.ID, o, nil)
		if err != nil {
			return err
		}
		platform := p.ID
		if len(res.Refs) == 0 {
			platform = "" // the result is one for whatever platform
		}
		desc := ocispecs.Descriptor{MediaType: in_toto.PayloadType, Annotations: map[string]string{predicateType: kind}}
		if err := b.record.Attach(ctx, platform, desc, bytes.NewReader(b.values.Matcher().Mask(data))); err != nil {
			return err
		}
	}
	return nil
}
