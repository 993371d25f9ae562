package manifest

import (
	"context"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/exporter/compression"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/progress"
	"golang.org/x/sync/errgroup"
)

// layersAtOnce is how many layers of an image are worked on at a time.
const layersAtOnce = 4

// emptyTar is the digest of a tar without entries, the diffID of a step that changed nothing.
const emptyTar digest.Digest = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"

// layersOf turns a stack into blobs, several layers at a time.
func (a *Assembler) layersOf(ctx context.Context, ref *layers.Ref, in exporter.Input, o Options, p progress.Writer) ([]layer, []Blob, error) {
	kept, err := a.fetch(ctx, ref, in, o, p)
	if err != nil {
		return nil, nil, err
	}
	if _, err := a.Layers.Solidify(ctx, ref); err != nil {
		return nil, nil, err
	}
	infos := ref.Layers()
	stack, blobs := make([]layer, len(infos)), make([]Blob, len(infos))
	eg, egCtx := errgroup.WithContext(ctx)
	eg.SetLimit(layersAtOnce)
	for i, info := range infos {
		eg.Go(func() (err error) {
			stack[i] = layer{diffID: info.DiffID, description: info.Labels.Description, created: info.CreatedAt}
			if stack[i].empty, err = a.empty(egCtx, ref, i, info); err != nil || stack[i].empty {
				return err
			}
			if kept[i] {
				blobs[i] = a.kept(info, in.Fetcher, o)
				return nil
			}
			blobs[i], err = a.blob(egCtx, ref, i, info, o)
			if changed, ok := blobs[i].Desc.Annotations[compression.LabelDiffID]; ok {
				stack[i].diffID = digest.Digest(changed)
				delete(blobs[i].Desc.Annotations, compression.LabelDiffID)
			}
			return err
		})
	}
	return stack, blobs, eg.Wait()
}

// empty tells whether a layer has no content. A layer that came with an image is taken by its digest only: whether it was
// fetched must make no difference to the image.
func (a *Assembler) empty(ctx context.Context, ref *layers.Ref, i int, info layers.Info) (bool, error) {
	if info.DiffID == emptyTar || info.Remote != nil {
		return info.DiffID == emptyTar, nil
	}
	return a.Layers.IsEmpty(ctx, ref, i)
}

// blob is layer i of a stack in the form that was asked for.
func (a *Assembler) blob(ctx context.Context, ref *layers.Ref, i int, info layers.Info, o Options) (Blob, error) {
	open := func(ctx context.Context) (io.ReadCloser, error) {
		r, _, err := a.Layers.Tar(ctx, ref, i)
		return cancellable(ctx, r, err)
	}
	mediaType, err := o.Compression.Type.MediaType(o.OCI)
	if err != nil {
		return Blob{}, err
	}
	if o.Compression.Type == compression.Uncompressed {
		r, size, err := a.Layers.Tar(ctx, ref, i)
		if err != nil {
			return Blob{}, err
		}
		return Blob{Desc: ocispecs.Descriptor{MediaType: mediaType, Digest: info.DiffID, Size: size}, Open: open}, r.Close()
	}
	d, err := compression.Compress(ctx, a.Content, o.Compression, info.DiffID, open)
	if err != nil {
		return Blob{}, err
	}
	d.MediaType = mediaType
	return Blob{Desc: d, Open: func(ctx context.Context) (io.ReadCloser, error) { return openContent(ctx, a.Content, d) }}, nil
}

func openContent(ctx context.Context, store content.Store, d ocispecs.Descriptor) (io.ReadCloser, error) {
	r, err := store.ReaderAt(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("open compressed layer: %w", err)
	}
	return cancellable(ctx, readCloser{content.NewReader(r), r}, nil)
}

type readCloser struct {
	io.Reader
	io.Closer
}

// cancellable makes what was opened end with ctx.
func cancellable(ctx context.Context, r io.ReadCloser, err error) (io.ReadCloser, error) {
	if err != nil {
		return nil, err
	}
	return readCloser{contextReader{ctx, r}, r}, nil
}

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}
