package manifest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/exporter/attrs"
	"github.com/slipwaybuild/slipway/exporter/compression"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// Options say how an image is written down.
type Options struct {
	// OCI chooses OCI media types over Docker's.
	OCI bool
	// Compression is that of layers made here.
	Compression compression.Spec
	// Force compresses layers anew that came compressed otherwise.
	Force bool
	// KeepRemote names layers that came from a registry as the registry has them, without bringing their bytes here.
	KeepRemote bool
	// Bring brings the bytes of such layers, and of those that came from elsewhere in a form of their own, into the content store. One
	// that cannot be had in the form in which it came is compressed as others are.
	Bring bool
	// PreferForeign leaves layers that must not be distributed where they are; otherwise they become ordinary ones.
	PreferForeign bool
	// Epoch is the output's own; see [exporter.Input.Epoch].
	Epoch attrs.Epoch
	// RewriteTimes asks for [Assembler.Rewrite].
	RewriteTimes bool
	// Annotations are the output's own; the frontend's are added.
	Annotations []attrs.Annotation
	// Attest says what becomes of attestations.
	Attest AttestOptions
	// Names are the image's, by which attestations speak of it.
	Names []string

	typesChosen, artifactChosen bool // and no default
}

// ParseOptions reads the attributes that all outputs of images have. fallback is how layers are compressed if nothing is said.
func ParseOptions(a map[string]string, fallback compression.Type) (o Options, err error) {
	if o.OCI, err = attrs.Bool(a, "oci-mediatypes", true); err != nil {
		return o, err
	}
	if o.Force, err = attrs.Bool(a, "force-compression", false); err != nil {
		return o, err
	}
	if o.Compression, err = compression.Parse(a["compression"], a["compression-level"], fallback); err != nil {
		return o, err
	}
	if err := o.check(); err != nil {
		return o, err
	}
	_, o.typesChosen = a["oci-mediatypes"]
	_, o.artifactChosen = a["oci-artifact"]
	if o.Attest, err = parseAttest(a, o.OCI); err != nil {
		return o, err
	}
	if o.Epoch, err = attrs.ParseEpoch(a); err != nil {
		return o, err
	}
	if o.PreferForeign, err = attrs.Bool(a, "prefer-nondist-layers", false); err != nil {
		return o, err
	}
	if o.RewriteTimes, err = attrs.Bool(a, "rewrite-timestamp", false); err != nil {
		return o, err
	}
	o.Annotations, err = attrs.Annotations(a)
	return o, err
}

// keeps tells whether layers that came from elsewhere stay as they are.
func (o Options) keeps() bool { return (o.KeepRemote || o.Bring) && !o.Force }

// Assembler makes images. It is safe for concurrent use.
type Assembler struct {
	Layers *layers.Store
	// Content takes compressed layers.
	Content content.Store
	// Shared says that others keep images in Content.
	Shared bool
}

// Image assembles what a build gave. The context carries the lease that keeps compressed layers. The blobs of the image can be
// opened while that lasts and the input is valid.
func (a *Assembler) Image(ctx context.Context, in exporter.Input, o Options, p progress.Writer) (*Image, error) {
	if len(in.Platforms) == 0 {
		return nil, errors.New("make image: the build gave no platform")
	}
	chosen, err := frontendAnnotations(in.Metadata)
	if err != nil {
		return nil, err
	}
	o.Annotations = slices.Concat(o.Annotations, chosen)
	img := &Image{}
	if in, img.Index, err = attested(in, o); err != nil {
		return nil, err
	}
	if err := checkAnnotations(in, o, img.Index); err != nil {
		return nil, err
	}
	for _, platform := range in.Platforms {
		if err := a.single(ctx, img, platform, in, o, p); err != nil {
			return nil, fmt.Errorf("make image for %s: %w", platform.ID, err)
		}
	}
	for i, platform := range in.Platforms {
		if err := a.attest(ctx, img, img.Singles[i], platform, in, o, p); err != nil {
			return nil, fmt.Errorf("make attestations for %s: %w", platform.ID, err)
		}
	}
	if img.Index {
		return img, img.addIndex(o)
	}
	img.Desc = img.Singles[0].Manifest
	img.Desc.Platform = &img.Singles[0].Platform
	return img, nil
}

func frontendAnnotations(md map[string][]byte) ([]attrs.Annotation, error) {
	given := map[string]string{}
	for k, v := range md {
		given[k] = string(v)
	}
	list, err := attrs.Annotations(given)
	if err != nil {
		return nil, fmt.Errorf("given by the frontend: %w", err)
	}
	return list, nil
}

// single adds the image of one platform.
func (a *Assembler) single(ctx context.Context, img *Image, platform exporter.Platform, in exporter.Input, o Options, p progress.Writer) error {
	s := Single{Platform: platform.Platform, Layers: []ocispecs.Descriptor{}}
	epoch, err := in.Epoch(o.Epoch, platform.ID)
	if err != nil {
		return err
	}
	stack, blobs, err := a.layersOf(ctx, platform.Ref, in, o, p)
	if err != nil {
		return err
	}
	c, err := patchConfig(configInput{platform.Config, platform.BaseConfig, platform.Platform, stack, epoch})
	if err != nil {
		return err
	}
	if err := addCache(ctx, in, platform.ID, stack, &c); err != nil {
		return err
	}
	if c.created != nil && (img.Created == nil || c.created.After(*img.Created)) {
		img.Created = c.created
	}
	configType, manifestType := ocispecs.MediaTypeImageConfig, ocispecs.MediaTypeImageManifest
	if !o.OCI {
		configType, manifestType = images.MediaTypeDockerSchema2Config, images.MediaTypeDockerSchema2Manifest
	}
	s.Config = ocispecs.Descriptor{MediaType: configType, Digest: digest.FromBytes(c.json), Size: int64(len(c.json))}
	img.add(Blob{Desc: s.Config, Data: c.json})
	children := []digest.Digest{s.Config.Digest}
	if err := noteRewritten(blobs, platform, o, epoch); err != nil {
		return err
	}
	for i, b := range blobs {
		if c.kept[i] {
			img.add(b)
			s.Layers, s.stack = append(s.Layers, b.Desc), append(s.stack, i)
			children = append(children, b.Desc.Digest)
		}
	}
	m := ocispecs.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: manifestType, Config: s.Config, Layers: s.Layers,
		Annotations: annotations(o.Annotations, attrs.Manifest, platformKey(platform.Platform)),
	}
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	s.Manifest = ocispecs.Descriptor{
		MediaType: manifestType, Digest: digest.FromBytes(data), Size: int64(len(data)),
		Annotations: annotations(o.Annotations, attrs.ManifestDescriptor, platformKey(platform.Platform)),
	}
	img.add(Blob{Desc: s.Manifest, Data: data, Children: children})
	img.Singles = append(img.Singles, s)
	return nil
}
