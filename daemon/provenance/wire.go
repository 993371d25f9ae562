package provenance

import (
	"encoding/json"
	"maps"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Build types, as BuildKit names them: the parameters are in its form.
const (
	buildTypeV1  = "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md"
	buildTypeV02 = "https://mobyproject.org/buildkit@v1"
)

// predicate is SLSA provenance v1.
type predicate struct {
	BuildDefinition buildDefinition `json:"buildDefinition"`
	RunDetails      runDetails      `json:"runDetails"`
}

type buildDefinition struct {
	BuildType            string             `json:"buildType"`
	ExternalParameters   externalParameters `json:"externalParameters"`
	InternalParameters   internalParameters `json:"internalParameters"`
	ResolvedDependencies []material         `json:"resolvedDependencies,omitempty"`
}

type externalParameters struct {
	ConfigSource configSource `json:"configSource"`
	Request      parameters   `json:"request"`
}

type internalParameters struct {
	BuildConfig       *buildConfig   `json:"buildConfig,omitempty"`
	BuilderPlatform   string         `json:"builderPlatform"`
	TargetPlatform    string         `json:"targetPlatform,omitempty"`
	DockerfileVersion string         `json:"dockerfileVersion,omitempty"`
	extra             map[string]any // stands beside the others
}

// MarshalJSON writes the daemon's additions beside the fields. None of them replaces a field.
func (p internalParameters) MarshalJSON() ([]byte, error) {
	type plain internalParameters
	return withExtra(plain(p), p.extra)
}

// withExtra writes v, a struct, with further fields.
func withExtra(v any, extra map[string]any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil || len(extra) == 0 {
		return b, err
	}
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(b, &fields); err != nil {
		return nil, err
	}
	all := maps.Clone(extra)
	for k, v := range fields {
		all[k] = v
	}
	return json.Marshal(all)
}

type runDetails struct {
	Builder  builder  `json:"builder"`
	Metadata metadata `json:"metadata"`
}

type builder struct {
	ID string `json:"id"`
}

type metadata struct {
	InvocationID string           `json:"invocationId,omitempty"`
	StartedOn    *time.Time       `json:"startedOn,omitempty"`
	FinishedOn   *time.Time       `json:"finishedOn,omitempty"`
	BuildKit     buildkitMetadata `json:"buildkit_metadata"`
	Hermetic     bool             `json:"buildkit_hermetic,omitempty"`
	Completeness completeness     `json:"buildkit_completeness"`
	Reproducible bool             `json:"buildkit_reproducible,omitempty"`
}

type buildkitMetadata struct {
	VCS    map[string]string                  `json:"vcs,omitempty"`
	Source *sourceMap                         `json:"source,omitempty"`
	Layers map[string][][]ocispecs.Descriptor `json:"layers,omitempty"`
}

type completeness struct {
	Request              bool `json:"request"`
	ResolvedDependencies bool `json:"resolvedDependencies"`
}

// predicateV02 is SLSA provenance v0.2.
type predicateV02 struct {
	Builder     builder       `json:"builder"`
	BuildType   string        `json:"buildType"`
	Materials   []material    `json:"materials,omitempty"`
	Invocation  invocationV02 `json:"invocation"`
	BuildConfig *buildConfig  `json:"buildConfig,omitempty"`
	Metadata    metadataV02   `json:"metadata"`
}

type invocationV02 struct {
	ConfigSource configSourceV02 `json:"configSource"`
	Parameters   parameters      `json:"parameters"`
	Environment  environmentV02  `json:"environment"`
}

type configSourceV02 struct {
	URI        string            `json:"uri,omitempty"`
	Digest     map[string]string `json:"digest,omitempty"`
	EntryPoint string            `json:"entryPoint,omitempty"`
}

type environmentV02 struct {
	Platform          string `json:"platform"`
	DockerfileVersion string `json:"dockerfileVersion,omitempty"`
	extra             map[string]any
}

// MarshalJSON is that of internalParameters.
func (e environmentV02) MarshalJSON() ([]byte, error) {
	type plain environmentV02
	return withExtra(plain(e), e.extra)
}

type metadataV02 struct {
	InvocationID string           `json:"buildInvocationID,omitempty"`
	StartedOn    *time.Time       `json:"buildStartedOn,omitempty"`
	FinishedOn   *time.Time       `json:"buildFinishedOn,omitempty"`
	Completeness completenessV02  `json:"completeness"`
	Reproducible bool             `json:"reproducible"`
	BuildKit     buildkitMetadata `json:"https://mobyproject.org/buildkit@v1#metadata"`
	Hermetic     bool             `json:"https://mobyproject.org/buildkit@v1#hermetic,omitempty"`
}

type completenessV02 struct {
	Parameters  bool `json:"parameters"`
	Environment bool `json:"environment"`
	Materials   bool `json:"materials"`
}

// v02 says the same in the older words.
func (p *predicate) v02() *predicateV02 {
	d, m := p.BuildDefinition, p.RunDetails.Metadata
	return &predicateV02{
		Builder: p.RunDetails.Builder, BuildType: buildTypeV02, Materials: d.ResolvedDependencies, BuildConfig: d.InternalParameters.BuildConfig,
		Invocation: invocationV02{
			ConfigSource: configSourceV02{
				URI: d.ExternalParameters.ConfigSource.URI, Digest: d.ExternalParameters.ConfigSource.Digest, EntryPoint: d.ExternalParameters.ConfigSource.Path,
			},
			Parameters: d.ExternalParameters.Request,
			Environment: environmentV02{
				Platform: d.InternalParameters.BuilderPlatform, DockerfileVersion: d.InternalParameters.DockerfileVersion, extra: d.InternalParameters.extra,
			},
		},
		Metadata: metadataV02{
			InvocationID: m.InvocationID, StartedOn: m.StartedOn, FinishedOn: m.FinishedOn,
			Completeness: completenessV02{Parameters: m.Completeness.Request, Environment: true, Materials: m.Completeness.ResolvedDependencies},
			Reproducible: m.Reproducible, BuildKit: m.BuildKit, Hermetic: m.Hermetic,
		},
	}
}
