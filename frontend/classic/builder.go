package classic

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/buildkit/frontend/dockerui"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/frontend"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// builder is one build.
type builder struct {
	Options
	bridge   frontend.Bridge
	settings dockerui.Config
	noCache  bool
	args     *buildArgs
	source   source
	shlex    *shell.Lex
	stages   []*stage
	lineage  map[digest.Digest]bool // of the images to take cache from; nil without them
}

// shortID is as much of an id as docker shows.
const shortID = 12

func short(id digest.Digest) string {
	if id == "" {
		return "" // scratch
	}
	return id.Encoded()[:shortID]
}

// build runs all stages up to the target, also those that nobody needs: docker does.
func (b *builder) build(ctx context.Context) (*stage, error) {
	file, err := parseDockerfile(b.source.dockerfile, b.source.dockerfileName)
	if err != nil {
		return nil, err
	}
	if file.stages, err = reachable(file.stages, b.settings.Target); err != nil {
		return nil, err
	}
	addLabels(&file.stages[len(file.stages)-1], b.settings.Labels)
	b.shlex = shell.NewLex(file.escape)
	if file.warnings != "" {
		b.Output.Printed(progress.Stderr, []byte(file.warnings))
	}
	if err := b.readLineage(ctx); err != nil {
		return nil, err
	}
	count := counter{total: file.steps(), out: b.Output}
	for i := range file.args {
		count.next(file.args[i].String())
		if err := b.globalArg(&file.args[i]); err != nil {
			return nil, err
		}
	}
	for i := range file.stages {
		if err := b.runStage(ctx, &file.stages[i], &count); err != nil {
			return nil, err
		}
	}
	if unused := b.args.unused(); len(unused) > 0 {
		b.Output.Text(fmt.Sprintf("[Warning] One or more build-args %v were not consumed\n", unused))
	}
	last := b.stages[len(b.stages)-1]
	if last.image == "" {
		return nil, failed("No image was generated. Is your Dockerfile empty?")
	}
	return last, nil
}

// reachable cuts off the stages after the target.
func reachable(stages []instructions.Stage, target string) ([]instructions.Stage, error) {
	if len(stages) == 0 {
		return nil, invalid(errors.New("no build stage in current context"))
	}
	if target == "" {
		return stages, nil
	}
	i, ok := instructions.HasStage(stages, target)
	if !ok {
		return nil, invalid(fmt.Errorf("failed to reach build target %s in Dockerfile", target))
	}
	return stages[:i+1], nil
}

// addLabels appends the client's labels to a stage as instructions, which are counted and shown like those of the Dockerfile.
func addLabels(s *instructions.Stage, labels map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		s.AddCommand(instructions.NewLabelCommand(k, labels[k], true))
	}
}

// counter numbers the steps.
type counter struct {
	n, total int
	out      Output
}

func (c *counter) next(text string) {
	c.n++
	c.out.Text(fmt.Sprintf("Step %d/%d : %s", c.n, c.total, text))
	c.out.Text("\n")
}

func (b *builder) globalArg(c *instructions.ArgCommand) error {
	env := shell.EnvsFromSlice(b.args.list(b.args.declared))
	err := c.Expand(func(word string) (string, error) {
		out, _, err := b.shlex.ProcessWord(word, env)
		return out, err
	})
	if err != nil {
		return &Error{err: err}
	}
	for _, arg := range c.Args {
		b.args.declareGlobal(arg.Key, arg.Value)
	}
	return nil
}

func (b *builder) runStage(ctx context.Context, in *instructions.Stage, count *counter) error {
	if in.Name != "" && b.stageNamed(in.Name) != nil {
		return failed("%s stage name already used", in.Name)
	}
	count.next(in.SourceCode)
	s := &stage{b: b, name: in.Name, args: b.args.stage()}
	if err := s.begin(ctx, in); err != nil {
		return err
	}
	s.tellImage()
	for _, c := range in.Commands {
		if ctx.Err() != nil {
			b.Output.Text("Build cancelled\n")
			return context.Cause(ctx)
		}
		count.next(fmt.Sprint(c))
		if err := s.dispatch(ctx, c); err != nil {
			return err
		}
		s.tellImage()
	}
	if s.image != "" {
		b.Output.Image(s.image)
	}
	b.stages = append(b.stages, s)
	return nil
}

func (b *builder) stageNamed(name string) *stage {
	for _, s := range b.stages {
		if s.name != "" && strings.EqualFold(s.name, name) {
			return s
		}
	}
	return nil
}

// solve loads a state. Nothing runs before the reference is used.
func (b *builder) solve(ctx context.Context, st llb.State, p *ocispecs.Platform) (frontend.Reference, *llb.Definition, error) {
	opts := []llb.ConstraintsOpt{llb.WithCaps(b.Caps.LLB)}
	if p != nil {
		opts = append(opts, llb.Platform(*p))
	}
	def, err := st.Marshal(ctx, opts...)
	if err != nil {
		return nil, nil, fmt.Errorf("write the step: %w", err)
	}
	ref, err := b.bridge.Solve(ctx, def.ToPB(), false)
	return ref, def, err
}

// perform solves a state to its end, telling what happens to its last step, and says whether that ran now: it may have come from
// the cache, or have been run earlier in this build.
func (b *builder) perform(ctx context.Context, st llb.State, p *ocispecs.Platform, tell func(progress.Event)) (_ frontend.Reference, ran bool, err error) {
	ref, def, err := b.solve(ctx, st, p)
	if err != nil {
		return nil, false, err
	}
	head, err := def.Head()
	if err != nil {
		return nil, false, err
	}
	done, err := b.Steps.Watch(ctx, head, func(ev progress.Event) {
		if v := ev.Vertex; v != nil && v.Started != nil && !v.Cached {
			ran = true
		}
		if tell != nil {
			tell(ev)
		}
	})
	if err != nil {
		return nil, false, err
	}
	err = ref.Evaluate(ctx)
	if watched := done(); err == nil {
		err = watched
	}
	return ref, ran, err
}

// readLineage finds out which images the client wants cache from, if it says so.
func (b *builder) readLineage(ctx context.Context) error {
	if len(b.CacheFrom) == 0 || b.noCache {
		return nil
	}
	b.lineage = map[digest.Digest]bool{}
	for _, name := range b.CacheFrom {
		ids, err := b.Images.Lineage(ctx, name)
		if err != nil {
			return fmt.Errorf("image %s to take cache from: %w", name, err)
		}
		for _, id := range ids {
			b.lineage[id] = true
		}
	}
	return nil
}
