package manifest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxDepth bounds how far an index may refer to another.
const maxDepth = 4

// maxGuesses bounds how many configs are read to find out a platform that the index does not tell.
const maxGuesses = 16

// Getter returns content, complete and verified.
type Getter func(context.Context, ocispecs.Descriptor) ([]byte, error)

// Image is the image that a reference means on a platform. It must not be changed.
type Image struct {
	// Root is what the reference leads to: the manifest, or an index above it.
	Root ocispecs.Descriptor
	// Path lists the indexes from Root down to the manifest, without it.
	Path []ocispecs.Descriptor
	// Manifest and Config describe the documents.
	Manifest, Config ocispecs.Descriptor
	// ConfigJSON is the config, byte for byte; Parsed is what is in it.
	ConfigJSON []byte
	Parsed     ocispecs.Image
	// Annotations are the manifest's.
	Annotations map[string]string
	Layers      []Layer
}

// NoMatchError is returned when an index has nothing for a platform.
type NoMatchError struct {
	Platform ocispecs.Platform
	Have     []string
}

func (e *NoMatchError) Error() string {
	s := "no image for " + platforms.FormatAll(platforms.Normalize(e.Platform))
	if len(e.Have) > 0 {
		s += "; there is " + strings.Join(e.Have, ", ")
	}
	return s
}

// Is makes it an errdefs.ErrNotFound.
func (e *NoMatchError) Is(target error) bool { return target == errdefs.ErrNotFound }

// Read follows root to the image for a platform. An image that is there for one platform only is taken whatever its platform is,
// as people name such images on purpose.
func Read(ctx context.Context, get Getter, root ocispecs.Descriptor, p ocispecs.Platform) (*Image, error) {
	r := reader{get: get, want: p, match: platforms.Only(platforms.Normalize(p))}
	img := &Image{Root: root}
	if err := r.descend(ctx, img, root, maxDepth); err != nil {
		return nil, err
	}
	return img, nil
}

type reader struct {
	get     Getter
	want    ocispecs.Platform
	match   platforms.MatchComparer
	guesses int
}

func (r *reader) document(ctx context.Context, d ocispecs.Descriptor) (*document, error) {
	if isSchema1(d.MediaType) {
		return nil, ErrSchema1
	}
	if !images.IsIndexType(d.MediaType) && !images.IsManifestType(d.MediaType) {
		// Whatever it is, this is where a manifest should be, and registries keep those apart from blobs. What it is its bytes tell.
		d.MediaType = ""
	}
	fetched := d
	if d.MediaType == "" {
		fetched.MediaType = ocispecs.MediaTypeImageManifest
	}
	b, err := r.get(ctx, fetched)
	if err != nil {
		return nil, err
	}
	doc, err := parse(b, d.MediaType)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.Digest, err)
	}
	return doc, nil
}

func (r *reader) descend(ctx context.Context, img *Image, d ocispecs.Descriptor, depth int) error {
	doc, err := r.document(ctx, d)
	if err != nil {
		return err
	}
	if !doc.isIndex() {
		return r.manifest(ctx, img, d, doc)
	}
	if depth == 0 {
		return fmt.Errorf("%w: indexes are nested too deeply", ErrNotImage)
	}
	img.Path = append(img.Path, d)
	told, untold := r.candidates(doc)
	if len(told) > 0 {
		// The best match is the answer; if it is broken, the next best would be a surprise.
		return r.descend(ctx, img, told[0], depth-1)
	}
	for _, m := range untold {
		found, err := r.guess(ctx, m, depth-1)
		if err != nil {
			return err
		}
		if found {
			return r.descend(ctx, img, m, depth-1)
		}
	}
	return &NoMatchError{Platform: r.want, Have: have(doc)}
}

// candidates returns the entries of an index that match, best first, and those that do not tell their platform.
func (r *reader) candidates(doc *document) (told, untold []ocispecs.Descriptor) {
	for _, m := range doc.Manifests {
		switch {
		case isAttestation(m):
		case m.Platform == nil:
			untold = append(untold, m)
		case r.match.Match(platforms.Normalize(*m.Platform)):
			told = append(told, m)
		}
	}
	slices.SortStableFunc(told, func(a, b ocispecs.Descriptor) int {
		pa, pb := platforms.Normalize(*a.Platform), platforms.Normalize(*b.Platform)
		switch {
		case r.match.Less(pa, pb):
			return -1
		case r.match.Less(pb, pa):
			return 1
		}
		return 0
	})
	return told, untold
}

// guess looks into a manifest whose index does not tell its platform.
func (r *reader) guess(ctx context.Context, m ocispecs.Descriptor, depth int) (bool, error) {
	if r.guesses++; r.guesses > maxGuesses {
		return false, fmt.Errorf("%w: too many manifests do not tell their platform", ErrNotImage)
	}
	var img Image
	err := r.descend(ctx, &img, m, depth)
	var none *NoMatchError
	switch {
	case errors.As(err, &none), errors.Is(err, ErrNotImage):
		return false, nil
	case err != nil:
		return false, err
	}
	return r.match.Match(platforms.Normalize(img.Parsed.Platform)), nil
}

func (r *reader) manifest(ctx context.Context, img *Image, d ocispecs.Descriptor, doc *document) error {
	b, err := r.get(ctx, *doc.Config)
	if err != nil {
		return fmt.Errorf("config of the image: %w", err)
	}
	config, layers, err := parseConfig(b, doc)
	if err != nil {
		return fmt.Errorf("%s: %w", d.Digest, err)
	}
	img.Manifest, img.Config, img.ConfigJSON, img.Parsed, img.Layers = d, *doc.Config, b, *config, layers
	img.Annotations = doc.Annotations
	return nil
}

// isAttestation tells whether an entry describes another entry instead of being an image. Some tools give images the type of
// their config as the type of artifact that they are.
func isAttestation(d ocispecs.Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] != "" || d.ArtifactType != "" && !images.IsConfigType(d.ArtifactType) ||
		d.Platform != nil && d.Platform.OS == "unknown" && d.Platform.Architecture == "unknown"
}

func have(doc *document) []string {
	var out []string
	for _, m := range doc.Manifests {
		if m.Platform == nil || isAttestation(m) {
			continue
		}
		if s := platforms.Format(platforms.Normalize(*m.Platform)); !slices.Contains(out, s) && len(out) < 20 {
			out = append(out, s)
		}
	}
	return out
}
