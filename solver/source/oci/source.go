package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/images"
	"github.com/slipwaybuild/slipway/solver/source"
	"github.com/slipwaybuild/slipway/solver/source/image/manifest"
)

// Options goes with [New]. Images and Layers must outlive the source.
type Options struct {
	Images *images.Store
	Layers *layers.Store
	// Logger takes what the source has to say; nil is silence.
	Logger *slog.Logger
}

// Source serves oci-layout://.
type Source struct {
	images *images.Store
	layers *layers.Store
	log    *slog.Logger
}

var _ source.Source = (*Source)(nil)

// New returns the source.
func New(o Options) *Source {
	s := &Source{images: o.Images, layers: o.Layers, log: o.Logger}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s
}

// Schemes implements [source.Source].
func (s *Source) Schemes() []string { return []string{"oci-layout"} }

// Config is the config of an image in a client's store.
type Config struct {
	Digest digest.Digest // of what the reference names: an index or a manifest
	JSON   []byte
}

// Pin reads the index, the manifest and the config; layers stay with the client. The identifier must have a digest.
func (s *Source) Pin(ctx context.Context, env source.Env, r source.Request) (source.Pinned, error) {
	id, err := parse(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.Identifier, err)
	}
	img, err := s.read(ctx, env.Sessions, id, r.Platform)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.Identifier, err)
	}
	return &manifest.Pinned{
		Image: img, Platform: r.Platform, Limit: id.limit, Description: r.Identifier,
		Add: func(ctx context.Context, l []manifest.Layer) (*layers.Ref, error) {
			return s.layers.AddRemote(ctx, manifest.Blobs(Ref(id.store), l)...)
		},
	}, nil
}

// ResolveConfig returns the config that an image has for a platform. ref is "name@digest", without scheme; store may be empty, which
// means the one called name.
func (s *Source) ResolveConfig(ctx context.Context, env source.Env, ref, store string, p ocispecs.Platform) (*Config, error) {
	r := source.Request{Identifier: refPrefix + ref, Platform: p, Attrs: map[string]string{pb.AttrOCILayoutStoreID: store}}
	id, err := parse(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.Identifier, err)
	}
	img, err := s.read(ctx, env.Sessions, id, p)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.Identifier, err)
	}
	return &Config{Digest: img.Root.Digest, JSON: img.ConfigJSON}, nil
}

func (s *Source) read(ctx context.Context, sessions func() *session.Group, id identifier, p ocispecs.Platform) (*manifest.Image, error) {
	open := func(ctx context.Context, d ocispecs.Descriptor) (io.ReadCloser, error) {
		return Open(ctx, sessions(), id.store, d)
	}
	ctx, err := s.images.Keeping(ctx)
	if err != nil {
		return nil, err
	}
	img, err := manifest.Read(ctx, manifest.Through(s.images.Content(), open), ocispecs.Descriptor{Digest: id.digest}, p)
	if err != nil {
		return nil, err
	}
	s.log.DebugContext(ctx, "read an image of a client's store", "store", id.store, "digest", id.digest, "manifest", img.Manifest.Digest)
	return img, s.images.Keep(ctx, img.Digests()...)
}

// identifier is a request, understood.
type identifier struct {
	store  string
	digest digest.Digest
	limit  int // of layers; 0 is none
}

func parse(r source.Request) (identifier, error) {
	rest, ok := ParseRef(r.Identifier)
	if !ok {
		return identifier{}, errors.New("not an oci-layout:// reference")
	}
	name, d, ok := strings.Cut(rest, "@")
	if !ok {
		return identifier{}, fmt.Errorf("reference %q must have digest", rest)
	}
	id := identifier{store: r.Attrs[pb.AttrOCILayoutStoreID], digest: digest.Digest(d)}
	if err := id.digest.Validate(); err != nil {
		return identifier{}, fmt.Errorf("reference %q: %w", rest, err)
	}
	if id.store == "" {
		id.store = storeName(name)
	}
	var err error
	id.limit, err = manifest.ParseLimit(r.Attrs[pb.AttrOCILayoutLayerLimit])
	return id, err
}

// storeName takes the tag from a name.
func storeName(name string) string {
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i]
	}
	return name
}
