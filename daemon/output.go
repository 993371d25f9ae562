package daemon

import (
	"context"
	"fmt"
	"maps"

	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/frontend"
	"golang.org/x/sync/errgroup"
)

// maxLosses is how often a build goes back for layers that were found to be gone while they were exported.
const maxLosses = 3

// outputAll is output, and makes again the layers that turn out to be gone from where they were left.
func (b *build) outputAll(ctx context.Context, r Request, res *frontend.Result, exporters []exporter.Exporter, caches cacheExports) (map[string]string, error) {
	for again := 0; ; again++ {
		answer, err := b.output(ctx, r, res, exporters, caches)
		if err == nil || again == maxLosses || ctx.Err() != nil || !b.refs.lost() {
			return answer, err
		}
		if b.delivered.broken() {
			return nil, fmt.Errorf("%w (a part of an output has gone to the client already: build again)", err)
		}
		b.engine.log.Info("make what was lost again", "ref", r.Ref, "error", err)
		if exporters, err = b.engine.exportersFor(r.Outputs, 0); err != nil {
			return nil, err
		}
	}
}

// output writes all that was asked for.
func (b *build) output(ctx context.Context, r Request, res *frontend.Result, exporters []exporter.Exporter, caches cacheExports) (map[string]string, error) {
	in, err := b.exportInput(ctx, r, res)
	if err != nil {
		return nil, err
	}
	defer b.recordProvenance(ctx, res)()
	if err := b.attest(ctx, res, &in); err != nil {
		return nil, err
	}
	if err := b.guardOutput(ctx, res, &in); err != nil {
		return nil, err
	}
	steps, err := b.keptSteps(ctx, r, res, in)
	if err != nil {
		return nil, err
	}
	defer b.keepResult(ctx, in, steps)()
	if r.AskExporters {
		more, err := b.askExporters(ctx, len(exporters), res, in)
		if err != nil {
			return nil, err
		}
		exporters = append(exporters, more...)
	}
	answer, err := b.write(ctx, res, in, exporters, caches)
	if err == nil && r.AskExporters {
		err = b.tellExporters(ctx, answer)
	}
	return answer, err
}

// write writes outputs and caches side by side.
func (b *build) write(ctx context.Context, res *frontend.Result, in exporter.Input, exporters []exporter.Exporter, caches cacheExports) (map[string]string, error) {
	if caches.none() {
		return b.export(ctx, exporters, in)
	}
	out, err := b.gather(ctx, res, in)
	if err != nil {
		return nil, err
	}
	if err := b.guardSteps(ctx, res, out.steps); err != nil {
		return nil, err
	}
	if caches.inline {
		in.InlineCache = b.inlineCache(out)
	}
	var answer, told map[string]string
	now, later := caches.split()
	eg, egCtx := errgroup.WithContext(ctx)
	eg.Go(func() (err error) {
		answer, err = b.export(egCtx, exporters, in)
		return err
	})
	eg.Go(func() (err error) {
		told, err = b.exportCaches(egCtx, now, out)
		return err
	})
	if err := eg.Wait(); err != nil {
		return nil, err
	}
	maps.Copy(answer, told)
	if len(later) > 0 {
		b.after = func(ctx context.Context) error {
			_, err := b.exportCaches(ctx, later, out)
			return err
		}
	}
	return answer, nil
}
