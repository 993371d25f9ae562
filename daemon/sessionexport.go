package daemon

import (
	"context"
	"errors"
	"fmt"

	sessionexporter "github.com/moby/buildkit/session/exporter"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/frontend"
	"github.com/slipwaybuild/slipway/session"
	"google.golang.org/grpc/codes"
)

// askExporters lets the client choose further outputs, knowing what was built. There are count outputs already.
func (b *build) askExporters(ctx context.Context, count int, res *frontend.Result, in exporter.Input) ([]exporter.Exporter, error) {
	req := &sessionexporter.FindExportersRequest{Metadata: res.Metadata}
	for _, p := range in.Platforms {
		id, err := b.shownRef(res, p)
		if err != nil {
			return nil, err
		}
		req.Refs = append(req.Refs, id)
	}
	var found *sessionexporter.FindExportersResponse
	err := b.withExporter(ctx, func(ctx context.Context, c sessionexporter.ExporterClient) (err error) {
		found, err = c.FindExporters(ctx, req)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("ask the client for exporters: %w", err)
	}
	var outputs []Output
	for _, x := range found.GetExporters() {
		outputs = append(outputs, Output{Type: x.GetType(), Attrs: x.GetAttrs()})
	}
	return b.engine.exportersFor(outputs, count)
}

// shownRef names what was built for a platform. A client that drives the build can look into it by that name.
func (b *build) shownRef(res *frontend.Result, p exporter.Platform) (string, error) {
	if ref, ok := res.FindRef(p.ID); ok && b.gateway != nil {
		shown, err := b.gateway.encodeRef(ref)
		if err != nil || shown.Id != "" {
			return shown.GetId(), err
		}
	}
	if ids := p.Ref.IDs(); len(ids) > 0 {
		return string(ids[len(ids)-1]), nil
	}
	return "", nil
}

// tellExporters tells the client what clients learn of a build, before the build ends.
func (b *build) tellExporters(ctx context.Context, answer map[string]string) error {
	err := b.withExporter(ctx, func(ctx context.Context, c sessionexporter.ExporterClient) error {
		_, err := c.FinalizeExport(ctx, &sessionexporter.FinalizeExportRequest{ExporterResponse: answer})
		return err
	})
	if err != nil {
		return fmt.Errorf("tell the client what was exported: %w", err)
	}
	return nil
}

// withExporter calls the exporter service of the client. A client that has none, or not this half of it, asked for nothing.
func (b *build) withExporter(ctx context.Context, call func(context.Context, sessionexporter.ExporterClient) error) error {
	err := b.sessions.Any(ctx, func(ctx context.Context, c session.Caller) error {
		err := call(ctx, sessionexporter.NewExporterClient(c.Conn()))
		switch grpcerrors.Code(err) {
		case codes.Unimplemented, codes.Unavailable:
			return fmt.Errorf("%w: %w", session.ErrNotSupported, err)
		}
		return err
	})
	if errors.Is(err, session.ErrNoSession) {
		return nil
	}
	return err
}
