package provenance

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/containerd/platforms"
	dockerfileversion "github.com/moby/buildkit/frontend/dockerfile/version"
	"github.com/moby/buildkit/solver/pb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Run is what is known of a build besides what it used.
type Run struct {
	// ID is the build's own, not the client's name for it.
	ID string
	// Started and Finished bound it.
	Started, Finished time.Time
	// Builder is the platform of the host that built.
	Builder ocispecs.Platform
	// Definition is the graph of the result; told with [Options.Max] only.
	Definition *pb.Definition
	// Layers are those of the result as the output has them; told with [Options.Max] only.
	Layers []ocispecs.Descriptor
	// BaseLayers is how many of them are the base image's.
	BaseLayers int
	// Compat is the version of BuildKit's behaviour that was asked for.
	Compat int
	// Environment is what the daemon's configuration adds.
	Environment map[string]any
}

// ErrIncomplete is returned where [Options.CompleteMaterials] asks for what cannot be had.
var ErrIncomplete = errors.New("provenance materials are incomplete")

// Complete checks that what the options ask for can be had.
func (c *Capture) Complete(o Options) error {
	switch {
	case !o.CompleteMaterials:
	case len(c.Locals) > 0:
		return fmt.Errorf("%w: the build uses local sources: %s", ErrIncomplete, strings.Join(c.Locals, ", "))
	case c.Incomplete:
		return fmt.Errorf("%w: the build uses a source without a lasting name", ErrIncomplete)
	}
	return nil
}

// Predicate returns the predicate, ready to be written as JSON. The capture may be asked again.
func (c *Capture) Predicate(o Options, r Run) (any, error) {
	c.settle()
	deps, err := c.materials()
	if err != nil {
		return nil, err
	}
	main := c.tell(c.Request)
	if c.Root != nil {
		root := c.tell(c.Root)
		if !root.params.empty() && !reflect.DeepEqual(root.params, main.params) {
			main.params.Root = &nestedRequest{ConfigSource: root.source, Request: &root.params}
		}
	}
	main.params.Compat = r.Compat
	main.params.Secrets, main.params.SSH = grantsOf(c.Secrets), grantsOf(c.SSH)
	for _, name := range c.Locals {
		main.params.Locals = append(main.params.Locals, local{Name: name})
	}
	complete := !c.Incomplete && len(c.Locals) == 0
	p := &predicate{
		BuildDefinition: buildDefinition{
			BuildType:            buildTypeV1,
			ExternalParameters:   externalParameters{ConfigSource: main.source, Request: main.params},
			InternalParameters:   internalParameters{BuilderPlatform: format(r.Builder), TargetPlatform: targetOf(c.Platform), extra: r.Environment},
			ResolvedDependencies: deps,
		},
		RunDetails: runDetails{
			Builder: builder{ID: o.BuilderID},
			Metadata: metadata{
				InvocationID: r.ID, StartedOn: utc(r.Started), FinishedOn: utc(r.Finished),
				BuildKit:     buildkitMetadata{VCS: main.vcs},
				Hermetic:     complete && !c.Network,
				Completeness: completeness{Request: c.Request != nil && c.Request.Frontend != "", ResolvedDependencies: complete},
				Reproducible: o.Reproducible,
			},
		},
	}
	if c.Request != nil && c.Request.Frontend == "dockerfile.v0" {
		p.BuildDefinition.InternalParameters.DockerfileVersion = dockerfileversion.Version()
	}
	if err := p.detail(o, r); err != nil {
		return nil, err
	}
	if o.V02 {
		return p.v02(), nil
	}
	return p, nil
}

// detail adds what max has, or takes out what min has not.
func (p *predicate) detail(o Options, r Run) error {
	if !o.Max {
		if p.BuildDefinition.ExternalParameters.Request.scrub() {
			p.RunDetails.Metadata.Completeness.Request = false
		}
		return nil
	}
	c, err := steps(r.Definition)
	if err != nil {
		return err
	}
	p.BuildDefinition.InternalParameters.BuildConfig = c
	if p.RunDetails.Metadata.BuildKit.Source, err = sources(r.Definition, c.DigestMapping); err != nil {
		return err
	}
	p.RunDetails.Metadata.BuildKit.Layers = c.chains(r.Layers, r.BaseLayers)
	return nil
}

func format(p ocispecs.Platform) string { return platforms.Format(platforms.Normalize(p)) }

func targetOf(p ocispecs.Platform) string {
	if p.OS == "" {
		return ""
	}
	return platforms.FormatAll(platforms.Normalize(p))
}

func utc(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
