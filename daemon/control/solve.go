package control

import (
	"context"
	"errors"
	"fmt"
	"slices"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/slipwaybuild/slipway/daemon"
	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/session/peer"
	"google.golang.org/grpc/codes"
)

// Solve runs a build. What is asked for and not served yet is refused, never ignored.
func (s *Service) Solve(ctx context.Context, r *controlapi.SolveRequest) (*controlapi.SolveResponse, error) {
	req, err := buildRequest(r)
	if err != nil {
		req.Refused = grpcerrors.WrapCode(err, codes.InvalidArgument)
	}
	req.Owner = peer.FromContext(ctx)
	res, err := s.engine.Build(ctx, req)
	if err != nil {
		return nil, withCode(err)
	}
	return &controlapi.SolveResponse{ExporterResponse: res.Exporter}, nil
}

func buildRequest(r *controlapi.SolveRequest) (daemon.Request, error) {
	req := daemon.Request{
		Ref:            r.Ref,
		Frontend:       r.Frontend,
		FrontendAttrs:  r.FrontendAttrs,
		FrontendInputs: r.FrontendInputs,
		Definition:     r.Definition,
		Entitlements:   r.Entitlements,
		Compat:         int(r.CompatibilityVersion),
		SourcePolicy:   r.SourcePolicy,
		PolicySession:  r.SourcePolicySession,
		AskExporters:   r.EnableSessionExporter,
		Outputs:        outputs(r),
		Internal:       r.Internal,
		// A definition without ops is a build of nothing; no definition at all is a build that the client drives.
		Driven: r.Frontend == "" && r.Definition == nil,
	}
	if r.Session != "" {
		req.Sessions = []string{r.Session}
	}
	switch {
	case r.ProxyNetwork:
		return req, errors.New("proxy networks (ProxyNetwork) are not supported")
	case r.CompatibilityVersion != 0 && !slices.Contains(exporter.Compats(), r.CompatibilityVersion):
		feature := &errdefs.CompatibilityFeature{Version: r.CompatibilityVersion, Feature: "compatibility-version"}
		return req, feature.WrapError(fmt.Errorf("known are %v", exporter.Compats()))
	}
	req.CacheImports, req.CacheExports = cacheImports(r.Cache), cacheExports(r.Cache)
	return req, nil
}

// outputs reads the list, or the single exporter that clients sent before there was one.
func outputs(r *controlapi.SolveRequest) []daemon.Output {
	var list []daemon.Output
	for _, x := range r.Exporters {
		list = append(list, daemon.Output{Type: x.Type, Attrs: x.Attrs})
	}
	if len(list) == 0 && r.ExporterDeprecated != "" {
		list = append(list, daemon.Output{Type: r.ExporterDeprecated, Attrs: r.ExporterAttrsDeprecated})
	}
	return list
}

// withCode gives an error the gRPC code that belongs to it.
func withCode(err error) error { return daemon.WithCode(err) }
