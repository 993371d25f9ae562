package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/session"
	"google.golang.org/grpc/metadata"
)

const (
	// storeHeader tells the client's content service which of its stores is meant.
	storeHeader = "buildkit-attachable-store-id"
	// refPrefix marks the references of layers that are in a client's store. It is followed by the store's id.
	refPrefix = "oci-layout://"
)

// Ref is the reference of layers in a client's content store. It names no session: any client may have a store of that id, and
// what comes from it is verified by digest.
func Ref(store string) string { return refPrefix + store }

// ParseRef is the reverse of Ref.
func ParseRef(ref string) (store string, ok bool) { return strings.CutPrefix(ref, refPrefix) }

// Open opens content in the store of one of the clients: the first that has it. errdefs.ErrNotFound if none has. The reader belongs
// to the client's session and fails when that ends.
func Open(ctx context.Context, g *session.Group, store string, d ocispecs.Descriptor) (io.ReadCloser, error) {
	var out io.ReadCloser
	err := anyWith(ctx, g, store, d.Digest, func(ctx context.Context, cs content.Store) error {
		ra, err := cs.ReaderAt(ctx, d)
		if err != nil {
			return err
		}
		out = struct {
			io.Reader
			io.Closer
		}{io.NewSectionReader(ra, 0, ra.Size()), ra}
		return nil
	})
	return out, err
}

// Check tells whether one of the clients has content in its store; errors are as for Open.
func Check(ctx context.Context, g *session.Group, store string, d digest.Digest) error {
	return anyWith(ctx, g, store, d, func(ctx context.Context, cs content.Store) error {
		_, err := cs.Info(ctx, d)
		return err
	})
}

// anyWith calls f with the store of the first of the clients that has the content. What f opens with the context that it is given lasts as
// long as ctx.
func anyWith(ctx context.Context, g *session.Group, store string, d digest.Digest, f func(context.Context, content.Store) error) error {
	var missing error
	err := g.Any(ctx, func(_ context.Context, c session.Caller) error {
		err := f(metadata.AppendToOutgoingContext(ctx, storeHeader, "oci:"+store), proxy.NewContentStore(c.Conn()))
		if errdefs.IsNotFound(err) {
			missing = err
			return fmt.Errorf("%w: %w", session.ErrNotSupported, err)
		}
		// The proxy has turned gRPC's codes into containerd's errors, by which a group knows no session to blame.
		if errdefs.IsNotImplemented(err) || errdefs.IsUnavailable(err) {
			return fmt.Errorf("%w: %w", session.ErrNotSupported, err)
		}
		return err
	})
	if err == nil {
		return nil
	}
	if missing != nil && errors.Is(err, session.ErrNoSession) {
		err = missing
	}
	return fmt.Errorf("read %s from the client's OCI layout %q: %w", d, store, err)
}
