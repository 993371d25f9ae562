package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/containerd/errdefs"
	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/exporter/manifest"
	"github.com/slipwaybuild/slipway/session"
	"google.golang.org/grpc/metadata"
)

// What clients of outputs with tar=false offer: a content store, by a name that is the same for all outputs.
const (
	writeMethod = "/containerd.services.content.v1.Content/Write"
	storeHeader = "buildkit-attachable-store-id"
	storeName   = "export"
)

// upload puts the image into the client's content store, and nothing that is there already. The client writes the index.json.
func upload(ctx context.Context, sessions *session.Group, img *manifest.Image, sent *exporter.Sent) error {
	return exporter.ToClientWith(ctx, sessions, writeMethod, func(ctx context.Context, c session.Caller) error {
		ctx = metadata.AppendToOutgoingContext(ctx, storeHeader, storeName)
		store := proxy.NewContentStore(c.Conn())
		for _, b := range img.Blobs {
			if b.Elsewhere {
				continue
			}
			if err := uploadBlob(ctx, store, b, sent); err != nil {
				return fmt.Errorf("send blob %s: %w", b.Desc.Digest, err)
			}
		}
		return nil
	})
}

func uploadBlob(ctx context.Context, store content.Ingester, b manifest.Blob, sent io.Writer) (err error) {
	w, err := content.OpenWriter(ctx, store, content.WithRef("export-"+b.Desc.Digest.String()), content.WithDescriptor(b.Desc))
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	r := io.NopCloser(bytes.NewReader(b.Data))
	if b.Open != nil {
		if r, err = b.Open(ctx); err != nil {
			return err
		}
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	err = content.Copy(ctx, w, io.TeeReader(r, sent), b.Desc.Size, b.Desc.Digest)
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	return err
}
