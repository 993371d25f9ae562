package image

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/flight"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/images"
	"github.com/slipwaybuild/slipway/solver/source"
	"github.com/slipwaybuild/slipway/solver/source/image/manifest"
	"github.com/slipwaybuild/slipway/solver/source/registry"
)

const scheme = "docker-image"

// Options goes with [New]. All but Logger are needed and must outlive the source.
type Options struct {
	Images   *images.Store
	Layers   *layers.Store
	Registry *registry.Registry
	// Logger takes what the source has to say; nil is silence.
	Logger *slog.Logger
}

// Source serves docker-image://.
type Source struct {
	images   *images.Store
	layers   *layers.Store
	registry *registry.Registry
	log      *slog.Logger
	flights  *flight.Group[flightKey, *found]

	looks   context.Context // of the looks at whether images are open
	endLook context.CancelFunc
	looking sync.WaitGroup
	mu      sync.Mutex
	looked  map[string]bool // guarded by mu
}

var _ source.Source = (*Source)(nil)

// New returns the source. Close it in the end.
func New(o Options) *Source {
	s := &Source{images: o.Images, layers: o.Layers, registry: o.Registry, log: o.Logger, looked: map[string]bool{}}
	s.looks, s.endLook = context.WithCancel(context.Background())
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.flights = flight.New[flightKey](context.Background(), flight.Options[*found]{})
	return s
}

// Close ends what is under way.
func (s *Source) Close() error {
	err := s.flights.Close(context.Background())
	s.endLook()
	s.looking.Wait()
	return err
}

// Schemes implements [source.Source].
func (s *Source) Schemes() []string { return []string{scheme} }

// Pin resolves the reference and reads its manifest and config.
func (s *Source) Pin(ctx context.Context, env source.Env, r source.Request) (source.Pinned, error) {
	q, limit, err := parse(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.Identifier, err)
	}
	f, err := s.find(ctx, env, q)
	if err != nil {
		return nil, err
	}
	if !f.local {
		// Where the build's steps are cached nobody asks for the layers, and yet a push of them may be spared by their place.
		s.layers.NoteRemote(manifest.Blobs(f.ref, f.image.Layers)...)
	}
	return &manifest.Pinned{
		Image: f.image, Platform: r.Platform, Limit: limit, Description: f.ref,
		Add: func(ctx context.Context, l []manifest.Layer) (*layers.Ref, error) { return s.add(ctx, f, l) },
	}, nil
}

// Config is what a reference means on a platform.
type Config struct {
	// Ref is the reference in full: host, repository, and tag or digest.
	Ref string
	// Digest is of what the reference leads to: an index, or a manifest.
	Digest digest.Digest
	// JSON is the image's config, byte for byte.
	JSON []byte
}

// ResolveConfig returns the config that ref, an image name as people write it, has for a platform.
func (s *Source) ResolveConfig(ctx context.Context, env source.Env, ref string, p ocispecs.Platform, m Mode) (*Config, error) {
	q, err := newQuery(ref, p, m)
	if err != nil {
		return nil, err
	}
	f, err := s.find(ctx, env, q)
	if err != nil {
		return nil, err
	}
	return &Config{Ref: f.ref, Digest: f.image.Root.Digest, JSON: f.image.ConfigJSON}, nil
}

// add takes hold of layers. Those of an image that was built or loaded here may be nowhere but here, compressed or not.
func (s *Source) add(ctx context.Context, f *found, l []manifest.Layer) (*layers.Ref, error) {
	if f.local {
		m, c := ocispecs.Manifest{}, ocispecs.Image{}
		for _, layer := range l {
			m.Layers = append(m.Layers, layer.Descriptor)
			c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, layer.DiffID)
		}
		r, err := s.images.Layers(ctx, m, c)
		if !errdefs.IsNotFound(err) {
			return r, err
		}
	}
	return s.layers.AddRemote(ctx, manifest.Blobs(f.ref, l)...)
}

// parse understands a request for an image.
func parse(r source.Request) (q query, limit int, err error) {
	ref, ok := strings.CutPrefix(r.Identifier, scheme+"://")
	if !ok {
		return q, 0, errors.New("not a docker-image:// reference")
	}
	mode, err := ParseMode(r.Attrs[pb.AttrImageResolveMode])
	if err != nil {
		return q, 0, err
	}
	if q, err = newQuery(ref, r.Platform, mode); err != nil {
		return q, 0, err
	}
	if c := r.Attrs[pb.AttrImageChecksum]; c != "" {
		if q.checksum, err = digest.Parse(c); err != nil {
			return q, 0, fmt.Errorf("checksum %q: %w", c, err)
		}
	}
	limit, err = manifest.ParseLimit(r.Attrs[pb.AttrImageLayerLimit])
	return q, limit, err
}
