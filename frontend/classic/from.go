package classic

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// defaultPath is the PATH of images that have none.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// imageID is what may be an image's id, or the beginning of one.
var imageID = regexp.MustCompile(`^(sha256:)?[0-9a-f]{4,64}$`)

// begin starts a stage from what its FROM names.
func (s *stage) begin(ctx context.Context, in *instructions.Stage) error {
	env := shell.EnvsFromSlice(s.args.list(s.args.global))
	name, _, err := s.b.shlex.ProcessWord(in.BaseName, env)
	if err != nil {
		return &Error{err: err}
	}
	if name == "" {
		return failed("base name (%s) should not be blank", in.BaseName)
	}
	if s.platform, err = s.b.platformOf(in.Platform, env); err != nil {
		return err
	}
	if err := s.beginWith(ctx, name); err != nil {
		return err
	}
	s.setPath()
	s.config.OpenStdin, s.config.StdinOnce = false, false
	if triggers := s.config.OnBuild; len(triggers) > 0 {
		s.config.OnBuild = nil
		return s.trigger(ctx, triggers)
	}
	return nil
}

func (s *stage) beginWith(ctx context.Context, name string) error {
	if from := s.b.stageNamed(name); from != nil {
		s.state, s.fs, s.image, s.base = from.state, from.fs, from.image, from.base
		s.said = from.said[:len(from.said):len(from.said)]
		s.config = from.config.clone()
		if s.platform == nil {
			s.platform = from.platform
		}
		s.became(from.image)
		return nil
	}
	if name == dockerui.EmptyImageName {
		p := platforms.DefaultSpec()
		if s.platform != nil {
			p = *s.platform
		}
		s.state, s.config = llb.Scratch(), &containerConfig{}
		s.base = imageConfig{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}
		return nil
	}
	img, err := s.b.pull(ctx, name, s.platform)
	if err != nil {
		return err
	}
	if s.fs, _, err = s.b.solve(ctx, img.state, s.platform); err != nil {
		return err
	}
	s.state, s.base = img.state, img.config
	s.said = img.config.History
	s.config = &containerConfig{}
	if img.config.Config != nil {
		s.config = img.config.Config.clone()
	}
	s.became(img.id)
	return nil
}

// setPath gives an image without a PATH docker's.
func (s *stage) setPath() {
	for _, e := range s.config.Env {
		if strings.HasPrefix(e, "PATH=") {
			return
		}
	}
	s.config.Env = append(s.config.Env, "PATH="+defaultPath)
}

// trigger runs the instructions that the base image left for its children.
func (s *stage) trigger(ctx context.Context, list []string) error {
	plural := ""
	if len(list) > 1 {
		plural = "s"
	}
	s.b.Output.Text(fmt.Sprintf("# Executing %d build trigger%s", len(list), plural))
	s.b.Output.Text("\n")
	for _, text := range list {
		c, err := parseTrigger(text)
		if err != nil {
			return err
		}
		if err := s.dispatch(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// platformOf is the platform of a stage: its own, the request's, or nil for whatever the image is.
func (b *builder) platformOf(text string, env shell.EnvGetter) (*ocispecs.Platform, error) {
	if text == "" {
		if len(b.settings.TargetPlatforms) > 0 {
			return &b.settings.TargetPlatforms[0], nil
		}
		return nil, nil
	}
	text, _, err := b.shlex.ProcessWord(text, env)
	if err != nil {
		return nil, failed("failed to process arguments for platform %s: %w", text, err)
	}
	p, err := platforms.Parse(text)
	if err != nil {
		return nil, failed("failed to parse platform %s: %w", text, err)
	}
	p = platforms.Normalize(p)
	return &p, nil
}

// pulled is an image that a stage or a COPY begins with.
type pulled struct {
	id     digest.Digest
	config imageConfig
	state  llb.State
}

// pull finds an image by its name, in the image store first unless the client wants it anew, or by its id.
func (b *builder) pull(ctx context.Context, name string, p *ocispecs.Platform) (*pulled, error) {
	mode := b.settings.ImageResolveMode
	byID, err := b.byID(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", name, err)
	}
	if byID != "" {
		name, mode = byID, llb.ResolveModePreferLocal
	}
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil, failed("%w", err)
	}
	named = reference.TagNameOnly(named)
	if byID == "" {
		if mode, err = b.bring(ctx, named, p, mode); err != nil {
			return nil, err
		}
	}
	ref := named.String()
	res, err := b.bridge.ResolveSource(ctx, &pb.SourceOp{Identifier: "docker-image://" + ref}, sourceresolver.Opt{
		LogName:  "[internal] load metadata for " + ref,
		ImageOpt: &sourceresolver.ResolveImageOpt{Platform: p, ResolveMode: mode.String()},
	})
	if err != nil {
		return nil, err
	}
	if res.Image == nil {
		return nil, fmt.Errorf("image %s: %w", ref, errors.New("it has no config"))
	}
	img := &pulled{id: digest.FromBytes(res.Image.Config)}
	if img.config, err = parseImage(res.Image.Config); err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	if ref, err = pinned(strings.TrimPrefix(res.Op.GetIdentifier(), "docker-image://"), res.Image.Digest); err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	img.state = llb.Image(ref, mode, llb.WithCustomName("FROM "+ref))
	return img, nil
}

// bring has an image pulled if it is not in the store or the client wants it anew, and returns how to find it then.
func (b *builder) bring(ctx context.Context, named reference.Named, p *ocispecs.Platform, mode llb.ResolveMode) (llb.ResolveMode, error) {
	if b.Pull == nil {
		return mode, nil
	}
	if mode != llb.ResolveModeForcePull {
		here, err := b.Images.Has(ctx, named)
		if err != nil || here {
			return mode, err
		}
	}
	if err := b.Pull(ctx, named, p); err != nil {
		return mode, err
	}
	return llb.ResolveModePreferLocal, nil
}

// pinned is a reference to exactly what was resolved: the tag may move before it is built on.
func pinned(ref string, d digest.Digest) (string, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ref, err
	}
	if _, ok := named.(reference.Digested); ok {
		return ref, nil
	}
	canonical, err := reference.WithDigest(named, d)
	if err != nil {
		return ref, err
	}
	return canonical.String(), nil
}

// byID is the reference to an image of the store that is named by its id; "" for other names. A name that looks like an id and is one
// of an image's names is that.
func (b *builder) byID(ctx context.Context, name string) (string, error) {
	if !imageID.MatchString(name) {
		return "", nil
	}
	if id, ok := strings.CutPrefix(name, "sha256:"); ok {
		return b.Images.Reference(ctx, id)
	}
	if named, err := b.Images.Lineage(ctx, name); err != nil || len(named) > 0 {
		return "", err
	}
	return b.Images.Reference(ctx, name)
}

// from finds what the flag --from of a COPY names: a stage by its name or number, or an image.
func (s *stage) from(ctx context.Context, name string) (*tree, error) {
	if st := s.b.stageNamed(name); st != nil {
		return st.tree(), nil
	}
	if n, err := strconv.Atoi(name); err == nil {
		switch {
		case n == len(s.b.stages):
			return nil, failed("invalid from flag value %s: refers to current build stage", name)
		case n < 0 || n > len(s.b.stages):
			return nil, failed("invalid from flag value %s: index out of bounds", name)
		}
		return s.b.stages[n].tree(), nil
	}
	img, err := s.b.pull(ctx, name, s.platform)
	if err != nil {
		return nil, fmt.Errorf("invalid from flag value %s: %w", name, err)
	}
	ref, _, err := s.b.solve(ctx, img.state, s.platform)
	return &tree{state: img.state, fs: ref}, err
}
