package manifest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	intoto "github.com/in-toto/in-toto-golang/in_toto"
	attestationtypes "github.com/moby/buildkit/util/attestation"
	"github.com/moby/buildkit/util/purl"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	packageurl "github.com/package-url/packageurl-go"
	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/exporter/attestation"
	"github.com/slipwaybuild/slipway/exporter/attrs"
	"github.com/slipwaybuild/slipway/solver/progress"
)

const (
	// artifactType is that of the manifest that stands for a platform's attestations in an index.
	artifactType = "application/vnd.docker.attestation.manifest.v1+json"
	// predicateAnnotation says on a statement's layer what it holds.
	predicateAnnotation = "in-toto.io/predicate-type"
)

// unknown is the platform of what is no image.
func unknown() *ocispecs.Platform { return &ocispecs.Platform{OS: "unknown", Architecture: "unknown"} }

// AttestStore is where attestations go.
type AttestStore string

// The places. In the index they stand beside the images, as BuildKit has it; referrers are artifacts that refer to the images, and
// clients that do not look for them see plain images (OCI Distribution 1.1).
const (
	AttestIndex     AttestStore = "index"
	AttestReferrers AttestStore = "referrers"
)

// AttestOptions say how attestations are written down.
type AttestOptions struct {
	// Inline puts those in that are for images only, also where they alone would make an index of an image.
	Inline bool
	// Store is where they go; empty is the index.
	Store AttestStore
	// Artifact makes manifests of attestations OCI artifacts that refer to the image.
	Artifact bool
}

// parseAttest reads the attributes about attestations.
func parseAttest(a map[string]string, oci bool) (o AttestOptions, err error) {
	if o.Artifact, err = attrs.Bool(a, "oci-artifact", oci); err != nil {
		return o, err
	}
	if o.Artifact && !oci {
		return o, errors.New(`exporter option "oci-artifact=true" conflicts with "oci-mediatypes=false"`)
	}
	if o.Inline, err = attrs.Bool(a, "attestation-inline", false); err != nil {
		return o, err
	}
	switch o.Store = AttestStore(a["attest-store"]); o.Store {
	case "":
		o.Store = AttestIndex
	case AttestIndex, AttestReferrers:
	default:
		return o, fmt.Errorf("invalid attest-store %q: it is index or referrers", o.Store)
	}
	return o, nil
}

// attested is the input with those attestations that the image has, and whether they make it an index.
func attested(in exporter.Input, o Options) (exporter.Input, bool, error) {
	many := in.MultiPlatform || len(in.Platforms) > 1
	inline := o.Attest.Inline || many || o.Attest.Store == AttestReferrers
	found := false
	list := make([]exporter.Platform, len(in.Platforms))
	for i, p := range in.Platforms {
		// Those that only images have were not asked for by name: Docker's types have no place for them.
		p.Attestations = attestation.Inline(p.Attestations, inline && o.OCI)
		found = found || len(p.Attestations) > 0
		list[i] = p
	}
	if found && !o.OCI {
		return in, many, errors.New(`cannot export attestations with "oci-mediatypes=false"`)
	}
	if found && !inline {
		// Where there are others, those go along.
		for i := range list {
			list[i].Attestations = in.Platforms[i].Attestations
		}
	}
	in.Platforms = list
	return in, many || found && o.Attest.Store == AttestIndex, nil
}

// attest adds what is said of one platform's image.
func (a *Assembler) attest(ctx context.Context, img *Image, s Single, platform exporter.Platform, in exporter.Input, o Options, p progress.Writer) error {
	if len(platform.Attestations) == 0 {
		return nil
	}
	r := attestation.Reader{Layers: a.Layers, Fetcher: in.Fetcher, Progress: p, LayerOf: a.layerOf(s, platform, in, p)}
	list, err := r.Unbundle(ctx, platform.Attestations)
	if err != nil {
		return err
	}
	self, err := subjectsOf(s, o.Names)
	if err != nil {
		return err
	}
	statements, err := r.Statements(ctx, list, self, s.Layers)
	if err != nil {
		return err
	}
	var layers []ocispecs.Descriptor
	for _, st := range statements {
		b, err := st.JSON()
		if err != nil {
			return fmt.Errorf("write attestation: %w", err)
		}
		d := ocispecs.Descriptor{
			MediaType: intoto.PayloadType, Digest: digest.FromBytes(b), Size: int64(len(b)),
			Annotations: map[string]string{predicateAnnotation: st.Type},
		}
		img.add(Blob{Desc: d, Data: b})
		layers = append(layers, d)
	}
	if o.Attest.Store == AttestReferrers {
		return img.addReferrers(s, layers)
	}
	return img.addAttestations(s, layers, o)
}

// subjectsOf names the image of one platform by all its names.
func subjectsOf(s Single, names []string) ([]attestation.Subject, error) {
	var list []attestation.Subject
	for _, name := range names {
		uri, err := purl.RefToPURL(packageurl.TypeDocker, name, &s.Platform)
		if err != nil {
			return nil, fmt.Errorf("name subject of attestations: %w", err)
		}
		d := s.Manifest.Digest
		list = append(list, attestation.Subject{Name: uri, Digest: map[string]string{d.Algorithm().String(): d.Encoded()}})
	}
	return list, nil
}

// addAttestations adds the manifest that stands beside an image in the index.
func (i *Image) addAttestations(s Single, layers []ocispecs.Descriptor, o Options) error {
	m := ocispecs.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest, Layers: layers}
	config := ocispecs.DescriptorEmptyJSON.Data
	m.Config = ocispecs.DescriptorEmptyJSON
	if o.Attest.Artifact {
		m.ArtifactType, m.Subject = artifactType, bare(s.Manifest)
	} else {
		var err error
		if config, err = attestConfig(layers); err != nil {
			return err
		}
		m.Config = ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))}
	}
	i.add(Blob{Desc: *bare(m.Config), Data: config})
	d, err := i.addManifest(m)
	if err != nil {
		return err
	}
	d.Platform = unknown()
	d.Annotations = map[string]string{
		attestationtypes.DockerAnnotationReferenceType:   attestationtypes.DockerAnnotationReferenceTypeDefault,
		attestationtypes.DockerAnnotationReferenceDigest: s.Manifest.Digest.String(),
	}
	i.Attestations = append(i.Attestations, d)
	return nil
}

// addReferrers adds one artifact per statement.
func (i *Image) addReferrers(s Single, layers []ocispecs.Descriptor) error {
	i.add(Blob{Desc: ocispecs.DescriptorEmptyJSON, Data: ocispecs.DescriptorEmptyJSON.Data})
	for _, l := range layers {
		m := ocispecs.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest,
			ArtifactType: intoto.PayloadType, Config: ocispecs.DescriptorEmptyJSON, Layers: []ocispecs.Descriptor{l},
			Subject: bare(s.Manifest), Annotations: l.Annotations,
		}
		d, err := i.addManifest(m)
		if err != nil {
			return err
		}
		d.ArtifactType, d.Annotations = m.ArtifactType, m.Annotations
		i.Referrers = append(i.Referrers, Referrer{Subject: s.Manifest.Digest, Desc: d})
	}
	return nil
}

// addManifest adds a manifest and returns its descriptor.
func (i *Image) addManifest(m ocispecs.Manifest) (ocispecs.Descriptor, error) {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return ocispecs.Descriptor{}, fmt.Errorf("write attestation manifest: %w", err)
	}
	children := []digest.Digest{m.Config.Digest}
	for _, l := range m.Layers {
		children = append(children, l.Digest)
	}
	d := ocispecs.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	i.add(Blob{Desc: d, Data: data, Children: children})
	return d, nil
}

// bare is a descriptor that says no more than what is needed to find the content.
func bare(d ocispecs.Descriptor) *ocispecs.Descriptor {
	return &ocispecs.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

// attestConfig is the config of a manifest that looks like an image's, for registries that take nothing else.
func attestConfig(layers []ocispecs.Descriptor) ([]byte, error) {
	c := ocispecs.Image{Platform: *unknown()}
	c.RootFS.Type = "layers"
	for _, l := range layers {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, l.Digest)
	}
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("write config of attestations: %w", err)
	}
	return b, nil
}
