package manifests

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/labels"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/remotecache"
)

const (
	// maxManifest is the most that a manifest, an index or an image's config may have, in bytes.
	maxManifest = 8 << 20
	// maxPlatforms is how many images of an index are read.
	maxPlatforms = 32
	// createdAt annotates a layer with when it was made.
	createdAt = "buildkit/createdat"
	// description tells what made it.
	description = "buildkit/description"
)

// opener opens content that a descriptor names.
type opener func(ctx context.Context, d ocispecs.Descriptor) (io.ReadCloser, error)

// manifest is an index or an image manifest: whichever fields are there tell which.
type manifest struct {
	SchemaVersion int                   `json:"schemaVersion"`
	MediaType     string                `json:"mediaType,omitempty"`
	Config        *ocispecs.Descriptor  `json:"config,omitempty"`
	Layers        []ocispecs.Descriptor `json:"layers,omitempty"`
	Manifests     []ocispecs.Descriptor `json:"manifests,omitempty"`
}

// read reads the caches behind a manifest or index.
func read(ctx context.Context, open opener, root ocispecs.Descriptor) ([]*remotecache.Cache, error) {
	var m manifest
	if err := readJSON(ctx, open, root, maxManifest, &m); err != nil {
		return nil, err
	}
	if m.Config == nil {
		for _, d := range m.Manifests {
			if d.MediaType == remotecache.ConfigMediaType {
				return readCache(ctx, open, d, m.Manifests)
			}
		}
		return readIndex(ctx, open, m.Manifests)
	}
	if m.Config.MediaType == remotecache.ConfigMediaType {
		return readCache(ctx, open, *m.Config, m.Layers)
	}
	return readImage(ctx, open, m)
}

func readCache(ctx context.Context, open opener, config ocispecs.Descriptor, list []ocispecs.Descriptor) ([]*remotecache.Cache, error) {
	data, err := readAll(ctx, open, config, remotecache.MaxConfig)
	if err != nil {
		return nil, err
	}
	known := make(map[digest.Digest]remotecache.Layer, len(list))
	for _, d := range list {
		l := remotecache.Layer{
			Descriptor: ocispecs.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size},
			DiffID:     digest.Digest(d.Annotations[labels.LabelUncompressed]), Description: d.Annotations[description],
		}
		_ = l.CreatedAt.UnmarshalText([]byte(d.Annotations[createdAt])) // without it, it has no time
		known[d.Digest] = l
	}
	c, err := remotecache.Parse(data, known)
	if err != nil {
		return nil, &remotecache.FormatError{Err: err}
	}
	return []*remotecache.Cache{c}, nil
}

// readIndex reads the images of an index that have a cache.
func readIndex(ctx context.Context, open opener, list []ocispecs.Descriptor) ([]*remotecache.Cache, error) {
	var caches []*remotecache.Cache
	for _, d := range list[:min(len(list), maxPlatforms)] {
		if !images.IsManifestType(d.MediaType) {
			continue
		}
		var m manifest
		if err := readJSON(ctx, open, d, maxManifest, &m); err != nil {
			return nil, err
		}
		if m.Config == nil || !images.IsConfigType(m.Config.MediaType) {
			continue
		}
		more, err := readImage(ctx, open, m)
		if err != nil {
			return nil, err
		}
		caches = append(caches, more...)
	}
	return caches, nil
}

// image is what is read of an image's config.
type image struct {
	RootFS struct {
		DiffIDs []digest.Digest `json:"diff_ids"`
	} `json:"rootfs"`
	Cache   []byte `json:"moby.buildkit.cache.v0"`
	History []struct {
		Created    *time.Time `json:"created"`
		CreatedBy  string     `json:"created_by"`
		EmptyLayer bool       `json:"empty_layer"`
	} `json:"history"`
}

func readImage(ctx context.Context, open opener, m manifest) ([]*remotecache.Cache, error) {
	var img image
	if err := readJSON(ctx, open, *m.Config, remotecache.MaxConfig, &img); err != nil {
		return nil, err
	}
	if len(img.Cache) == 0 || len(img.RootFS.DiffIDs) != len(m.Layers) {
		return nil, nil
	}
	list := make([]remotecache.Layer, len(m.Layers))
	for i, d := range m.Layers {
		list[i] = remotecache.Layer{
			Descriptor: ocispecs.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size},
			DiffID:     img.RootFS.DiffIDs[i],
		}
	}
	i := 0
	for _, h := range img.History {
		if !h.EmptyLayer && i < len(list) {
			if h.Created != nil {
				list[i].CreatedAt = *h.Created
			}
			list[i].Description = h.CreatedBy
			i++
		}
	}
	c, err := remotecache.ParseInline(img.Cache, list)
	if err != nil {
		return nil, &remotecache.FormatError{Err: err}
	}
	return []*remotecache.Cache{c}, nil
}

func readJSON(ctx context.Context, open opener, d ocispecs.Descriptor, limit int64, to any) error {
	data, err := readAll(ctx, open, d, limit)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, to); err != nil {
		return &remotecache.FormatError{Err: fmt.Errorf("parse %s: %w", d.Digest, err)}
	}
	return nil
}

// readAll reads content and verifies it.
func readAll(ctx context.Context, open opener, d ocispecs.Descriptor, limit int64) (_ []byte, err error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, &remotecache.FormatError{Err: fmt.Errorf("digest %q: %w", d.Digest, err)}
	}
	if d.Size > limit {
		return nil, &remotecache.FormatError{Err: fmt.Errorf("%s has %d bytes, the limit is %d", d.Digest, d.Size, limit)}
	}
	r, err := open(ctx, d)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	closeErr := r.Close()
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", d.Digest, err)
	case closeErr != nil:
		return nil, fmt.Errorf("read %s: %w", d.Digest, closeErr)
	case int64(len(data)) > limit:
		return nil, &remotecache.FormatError{Err: fmt.Errorf("%s has more than %d bytes", d.Digest, limit)}
	case d.Digest.Algorithm().FromBytes(data) != d.Digest:
		return nil, fmt.Errorf("read %s: the content has another digest", d.Digest)
	}
	return data, nil
}
