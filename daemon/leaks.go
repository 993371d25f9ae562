package daemon

import (
	"context"
	"errors"
	"slices"
	"strings"

	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/frontend"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/guard"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/ops"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// allowLeaks reads which secrets the client lets pass.
func (b *build) allowLeaks(attrs map[string]string) {
	for id := range strings.SplitSeq(attrs["build-arg:"+ops.AllowLeakArg], ",") {
		b.leaks.Allow(strings.TrimSpace(id))
	}
}

// guardOutput searches what is about to leave the build for the secrets it used: layers that were made before the secret was known, or
// came from the cache, the image's config, and what is said of the result.
func (b *build) guardOutput(ctx context.Context, res *frontend.Result, in *exporter.Input) error {
	b.learned(ctx)
	for _, p := range in.Platforms {
		b.warnOfEnv(environment(p.Config))
	}
	m := b.values.Matcher()
	if !m.Searches(b.leaks.Allows) {
		return nil
	}
	for i := range in.Platforms {
		p := &in.Platforms[i]
		var ref *reference
		if r, ok := res.FindRef(p.ID); ok {
			ref = referenceOf(r)
		}
		if err := b.guardStack(ctx, ref, p.Ref, m); err != nil {
			return err
		}
		if err := b.guardConfig(ref, p.Config, m); err != nil {
			return err
		}
		for i := range p.Attestations {
			a := &p.Attestations[i]
			if content := a.Content; content != nil {
				a.Content = func(ctx context.Context, layers []ocispecs.Descriptor) ([]byte, error) {
					data, err := content(ctx, layers)
					if err == nil {
						err = b.guardText(data, "the attestation "+a.Type)
					}
					return data, err
				}
			}
		}
	}
	return nil
}

// guardStack searches the layers of an outcome. Those that came from a registry are there for others to read.
func (b *build) guardStack(ctx context.Context, ref *reference, stack *layers.Ref, m *guard.Matcher) error {
	for i, l := range stack.Layers() {
		if l.Kind == layers.Remote || l.Remote != nil {
			continue
		}
		leak, err := b.engine.factory.SearchLayer(ctx, stack, i, m, b.leaks)
		if err != nil {
			return err
		}
		if leak == nil {
			continue
		}
		if err := b.refuseLayer(ctx, ref, l.ID, leak); err != nil {
			return err
		}
	}
	return nil
}

// guardSteps searches the layers of steps that go into a cache for other machines.
func (b *build) guardSteps(ctx context.Context, res *frontend.Result, steps []solver.Step) error {
	m := b.values.Matcher()
	if !m.Searches(b.leaks.Allows) {
		return nil
	}
	return res.EachRef(func(r gwclient.Reference) error {
		for _, s := range steps {
			for _, result := range s.Results {
				stack := refOf(result)
				if stack == nil || s.Vertex.Export == solver.ExportNever {
					continue
				}
				if err := b.guardStack(ctx, referenceOf(r), stack, m); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// refuseLayer finds the step that made a layer in which a secret is, and has the cache forget it and all that came of it.
func (b *build) refuseLayer(ctx context.Context, ref *reference, id layers.ID, leak *ops.LeakError) error {
	if ref == nil {
		return b.leaks.Refuse(leak, progress.NewWriter(b.sink, ""))
	}
	steps, err := b.solver.Known(ctx, ref.graph.Edge())
	if err != nil {
		return errors.Join(leak, err)
	}
	steps = slices.DeleteFunc(steps, func(s solver.Step) bool {
		return !slices.ContainsFunc(s.Results, func(r solver.Result) bool {
			stack := refOf(r)
			return stack != nil && slices.Contains(stack.IDs(), id)
		})
	})
	if len(steps) == 0 {
		return b.leaks.Refuse(leak, progress.NewWriter(b.sink, ""))
	}
	v := steps[0].Vertex
	leak.Step = b.values.Matcher().MaskString(v.Name)
	if err := b.leaks.Refuse(leak, progress.NewWriter(b.sink, v.ID)); err == nil {
		return nil
	}
	if err := b.solver.Forget(ctx, leak, steps...); err != nil {
		return errors.Join(leak, err)
	}
	return ref.failure(&solver.VertexError{Vertex: v, Err: leak})
}

// guardText searches what is said of the result.
func (b *build) guardText(data []byte, where string) error {
	if id := b.values.Matcher().Find(data, b.leaks.Allows); id != "" {
		return b.leaks.Refuse(&ops.LeakError{ID: id, Where: where}, progress.NewWriter(b.sink, ""))
	}
	return nil
}
