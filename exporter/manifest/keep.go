package manifest

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/solver/layers"
	layerimages "github.com/slipwaybuild/slipway/solver/layers/images"
	"github.com/slipwaybuild/slipway/solver/progress"
	"github.com/slipwaybuild/slipway/solver/remotecache"
	"github.com/slipwaybuild/slipway/solver/source/oci"
	"golang.org/x/sync/errgroup"
)

// fetch brings the layers whose bytes are wanted, and tells which layers of the stack stay in the form in which they came.
func (a *Assembler) fetch(ctx context.Context, ref *layers.Ref, in exporter.Input, o Options, p progress.Writer) ([]bool, error) {
	infos := ref.Layers()
	kept := make([]bool, len(infos))
	if !o.keeps() {
		return kept, a.Layers.Fetch(ctx, ref, in.Fetcher, p)
	}
	eg, egCtx := errgroup.WithContext(ctx)
	eg.SetLimit(layersAtOnce)
	for i, info := range infos {
		eg.Go(func() (err error) {
			if kept[i], err = a.keep(egCtx, info, in.Fetcher, o, p); err != nil || kept[i] || info.Kind != layers.Remote {
				return err
			}
			one := a.Layers.Slice(ref, i, i+1)
			return errors.Join(a.Layers.Fetch(egCtx, one, in.Fetcher, p), one.Release())
		})
	}
	return kept, eg.Wait()
}

// keep tells whether a layer stays in the form in which it came, and brings its bytes if they are wanted.
func (a *Assembler) keep(ctx context.Context, info layers.Info, f layers.Fetcher, o Options, p progress.Writer) (bool, error) {
	if o.Bring {
		return a.bring(ctx, info, f, o, p)
	}
	return a.stays(ctx, info)
}

// stays tells whether a layer can be named as it came. Where others put images into the content store, what they put there is used
// as it is, and not stored in another form besides. What only the client has goes away with the build.
func (a *Assembler) stays(ctx context.Context, info layers.Info) (bool, error) {
	if atRegistry(info) {
		return true, nil
	}
	if !a.Shared || info.Remote == nil || info.Remote.Ref != "" {
		return false, nil
	}
	_, err := a.Content.Info(ctx, info.Remote.Descriptor.Digest)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// atRegistry tells whether a layer can be had from a registry for as long as one may expect.
func atRegistry(info layers.Info) bool {
	if info.Remote == nil || info.Remote.Ref == "" || remotecache.IsLocation(info.Remote.Ref) {
		return false
	}
	_, session := oci.ParseRef(info.Remote.Ref)
	return !session
}

// bring brings a layer as it came into the content store, under the context's lease; false if it cannot be had like that. An image
// that holds what it was built from in the form in which it came is the same wherever it is written, and registries have these layers.
func (a *Assembler) bring(ctx context.Context, info layers.Info, f layers.Fetcher, o Options, p progress.Writer) (bool, error) {
	if info.Remote == nil || f == nil {
		return false, nil
	}
	if o.PreferForeign {
		if _, ok := foreign(info.Remote.Descriptor, o.OCI); ok {
			return true, nil
		}
	}
	d := info.Remote.Descriptor
	err := layerimages.CopyLayer(ctx, a.Content, d, info.DiffID, func(ctx context.Context) (io.ReadCloser, error) {
		r, err := a.open(ctx, *info.Remote, f)
		if err != nil || p == nil {
			return r, err
		}
		id := d.Digest.Encoded()
		m := exporter.Meter(p, progress.Status{ID: id[:12], Name: "downloading", Total: d.Size})
		return metered{io.TeeReader(r, m), r, m}, nil
	})
	if err == nil || ctx.Err() != nil {
		return err == nil, err
	}
	if info.Kind != layers.Remote && p != nil {
		exporter.Meter(p, progress.Status{ID: fmt.Sprintf("making layer %s anew, as it cannot be had: %v", d.Digest, err)}).Done()
	}
	return false, nil
}

type metered struct {
	io.Reader
	io.Closer
	m *exporter.Sent
}

// Close ends the status as well.
func (m metered) Close() error {
	m.m.Done()
	return m.Closer.Close()
}

// open opens a layer as it came.
func (a *Assembler) open(ctx context.Context, b layers.RemoteBlob, f layers.Fetcher) (io.ReadCloser, error) {
	r, err := f.Fetch(ctx, b)
	if errdefs.IsNotFound(err) || b.Cached && err != nil && ctx.Err() == nil {
		a.Layers.Lose(b)
	}
	if err == nil && b.Cached {
		r = &judged{ReadCloser: r, ctx: ctx, hash: b.Descriptor.Digest.Algorithm().Digester(), want: b.Descriptor, lose: func() { a.Layers.Lose(b) }}
	}
	return cancellable(ctx, r, err)
}

// judged reads a cache's blob. One that breaks off or is another is lost.
type judged struct {
	io.ReadCloser
	ctx  context.Context
	hash digest.Digester
	read int64
	want ocispecs.Descriptor
	lose func()
}

func (j *judged) Read(p []byte) (int, error) {
	n, err := j.ReadCloser.Read(p)
	_, _ = j.hash.Hash().Write(p[:n]) // a hash takes all
	j.read += int64(n)
	// Who knows the length may not read as far as the end.
	if errors.Is(err, io.EOF) || j.read >= j.want.Size && n > 0 {
		if got := j.hash.Digest(); got != j.want.Digest {
			err = fmt.Errorf("a cache's blob is %s, not %s", got, j.want.Digest)
		}
	}
	if err != nil && !errors.Is(err, io.EOF) && j.ctx.Err() == nil {
		j.lose()
	}
	return n, err
}

// kept is a layer in the form in which it came.
func (a *Assembler) kept(info layers.Info, f layers.Fetcher, o Options) Blob {
	d := info.Remote.Descriptor
	desc := ocispecs.Descriptor{MediaType: layerMediaType(d.MediaType, o.OCI), Digest: d.Digest, Size: d.Size}
	elsewhere := false
	if o.PreferForeign {
		if kept, ok := foreign(d, o.OCI); ok {
			desc, elsewhere = kept, true
		}
	}
	return Blob{
		Desc: desc, Remote: info.Remote, Elsewhere: elsewhere,
		Open: func(ctx context.Context) (io.ReadCloser, error) {
			if o.Bring && !elsewhere {
				return openContent(ctx, a.Content, desc)
			}
			return a.open(ctx, *info.Remote, f)
		},
	}
}

// layerMediaType says the same of a registry's layer in the terms of the manifest. What was not to be distributed becomes an
// ordinary layer: the image is whole where it is.
func layerMediaType(t string, oci bool) string {
	for _, same := range [][4]string{
		{ocispecs.MediaTypeImageLayer, images.MediaTypeDockerSchema2Layer,
			ocispecs.MediaTypeImageLayerNonDistributable, images.MediaTypeDockerSchema2LayerForeign}, //nolint:staticcheck // old images have them
		{ocispecs.MediaTypeImageLayerGzip, images.MediaTypeDockerSchema2LayerGzip,
			ocispecs.MediaTypeImageLayerNonDistributableGzip, images.MediaTypeDockerSchema2LayerForeignGzip}, //nolint:staticcheck // as above
		{ocispecs.MediaTypeImageLayerZstd, images.MediaTypeDockerSchema2LayerZstd,
			ocispecs.MediaTypeImageLayerNonDistributableZstd}, //nolint:staticcheck // as above
	} {
		for _, other := range same {
			switch {
			case t != other || t == "":
			case oci:
				return same[0]
			default:
				return same[1]
			}
		}
	}
	return t
}
