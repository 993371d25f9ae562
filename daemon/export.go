package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/frontend"
	"github.com/slipwaybuild/slipway/frontend/gateway"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/progress"
	"golang.org/x/sync/errgroup"
)

// exportInput solves every reference of a result and puts beside each what the frontend said of it.
func (b *build) exportInput(ctx context.Context, r Request, res *frontend.Result) (exporter.Input, error) {
	in := exporter.Input{
		Metadata: map[string][]byte{},
		Compat:   r.Compat,
		Sessions: b.sessions,
		Streams:  &b.delivered.streams,
		Host:     b.engine.sameHost,
		Fetcher:  b.engine.fetcher(b.groupNow),
	}
	var err error
	if in.SourceDateEpoch, err = epoch(r.FrontendAttrs); err != nil {
		return in, err
	}
	ps, err := exptypes.ParsePlatforms(res.Metadata)
	if err != nil {
		return in, fmt.Errorf("result of the frontend: %w", err)
	}
	// A frontend that was asked for several platforms, or for one as if it were several, answers with a map.
	in.MultiPlatform = len(res.Refs) > 0
	if _, said := res.Metadata[exptypes.ExporterPlatformsKey]; said || !res.IsEmpty() {
		asked := cmp.Or(r.FrontendAttrs["platform"], platforms.Format(b.engine.platform))
		if err := b.warnOfPlatforms(ctx, asked, ps, in.MultiPlatform); err != nil {
			return in, err
		}
	}
	in.Platforms = make([]exporter.Platform, len(ps.Platforms))
	eg, egCtx := errgroup.WithContext(ctx)
	for i, p := range ps.Platforms {
		eg.Go(func() error {
			ref, ok := res.FindRef(p.ID)
			if !ok && len(res.Refs) > 0 {
				return fmt.Errorf("result of the frontend: no reference for platform %s", p.ID)
			}
			stack, err := b.stackOf(egCtx, ref)
			in.Platforms[i] = exporter.Platform{
				ID: p.ID, Platform: p.Platform, Ref: stack,
				Config:     platformValue(res.Metadata, exptypes.ExporterImageConfigKey, p.ID),
				BaseConfig: platformValue(res.Metadata, exptypes.ExporterImageBaseConfigKey, p.ID),
			}
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return in, err
	}
	for k, v := range res.Metadata {
		if !strings.HasPrefix(k, exptypes.ExporterImageConfigKey) && !strings.HasPrefix(k, exptypes.ExporterImageBaseConfigKey) {
			in.Metadata[k] = v
		}
	}
	return in, nil
}

// stackOf solves a reference; what is nothing is the empty stack.
func (b *build) stackOf(ctx context.Context, ref gwclient.Reference) (*layers.Ref, error) {
	var stack *layers.Ref
	if gr, ok := ref.(*gateway.Reference); ok && gr != nil {
		r, ok := gr.Reference.(*reference)
		if !ok {
			return nil, fmt.Errorf("result of the frontend: a reference of another build")
		}
		var err error
		if stack, err = r.layers(ctx); err != nil {
			return nil, err
		}
	}
	if stack == nil {
		return b.engine.empty, nil
	}
	return stack, nil
}

// platformValue reads metadata that may be given per platform.
func platformValue(md map[string][]byte, key, platform string) []byte {
	if v, ok := md[key+"/"+platform]; ok {
		return v
	}
	return md[key]
}

// export writes all outputs at once. The answers are merged as BuildKit's clients expect; where there are several, each is
// also there under "exporter.<n>.".
func (b *build) export(ctx context.Context, exporters []exporter.Exporter, in exporter.Input) (map[string]string, error) {
	answers := make([]map[string]string, len(exporters))
	eg, egCtx := errgroup.WithContext(ctx)
	for i, x := range exporters {
		if answer, ok := b.delivered.answer(i); ok {
			answers[i] = answer
			continue
		}
		eg.Go(func() error {
			return exportError(x.Name(), b.step(egCtx, x.Name(), func(ctx context.Context, p progress.Writer) error {
				answer, err := x.Export(ctx, in, p)
				if err == nil {
					b.recordResult(ctx, i, answer)
					b.delivered.done(i, answer)
				}
				answers[i] = answer
				return err
			}))
		})
	}
	if err := eg.Wait(); err != nil {
		return nil, err
	}
	merged := map[string]string{}
	for i, answer := range answers {
		merge(merged, answer, i, len(exporters)) // in their order: where two say the same, the last counts
	}
	for k, v := range in.Metadata {
		if strings.HasPrefix(k, "frontend.") {
			merged[k] = string(v)
		}
	}
	return merged, nil
}

// merge adds the answer of output i of n.
func merge(merged, answer map[string]string, i, n int) {
	maps.Copy(merged, answer)
	if n > 1 {
		for k, v := range answer {
			merged[fmt.Sprintf("exporter.%d.%s", i, k)] = v
		}
	}
}

// exportError names the output that failed.
func exportError(name string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%s: %w", name, err)
}
