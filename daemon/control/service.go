package control

import (
	"context"
	"runtime/debug"

	controlapi "github.com/moby/buildkit/api/services/control"
	apitypes "github.com/moby/buildkit/api/types"
	dockerfile "github.com/moby/buildkit/frontend/dockerfile/version"
	"github.com/moby/buildkit/solver/pb"
	"github.com/slipwaybuild/slipway/daemon"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/dial"
	"github.com/slipwaybuild/slipway/solver/executor/devices"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Service is the Control service. What it does not serve yet answers codes.Unimplemented.
type Service struct {
	controlapi.UnimplementedControlServer

	engine   *daemon.Engine
	sessions *session.Manager
	version  string
}

// New returns the service; version is what Info says.
func New(e *daemon.Engine, sessions *session.Manager, version string) *Service {
	return &Service{engine: e, sessions: sessions, version: version}
}

// Register puts the service on a server.
func (s *Service) Register(g *grpc.Server) { controlapi.RegisterControlServer(g, s) }

// Session carries a session inside a stream; it ends with the session.
func (s *Service) Session(stream controlapi.Control_SessionServer) error {
	return dial.ServeControl(stream, s.sessions)
}

// Info names the engine. Clients take it as a sign of life.
func (s *Service) Info(context.Context, *controlapi.InfoRequest) (*controlapi.InfoResponse, error) {
	return &controlapi.InfoResponse{BuildkitVersion: s.buildkitVersion()}, nil
}

func (s *Service) buildkitVersion() *apitypes.BuildkitVersion {
	return &apitypes.BuildkitVersion{
		Package: "github.com/slipwaybuild/slipway", Version: s.version, Revision: revision(), DockerfileVersion: dockerfile.Version(),
	}
}

// revision is the commit that the daemon was built from, "" if the build did not know.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}

// ListWorkers describes the one worker there is.
func (s *Service) ListWorkers(_ context.Context, r *controlapi.ListWorkersRequest) (*controlapi.ListWorkersResponse, error) {
	w := s.engine.Worker()
	match, err := daemon.ParseFilter(r.Filter)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	res := &controlapi.ListWorkersResponse{}
	if match(workerAdaptor(w)) {
		res.Record = append(res.Record, &apitypes.WorkerRecord{
			ID:              w.ID,
			Labels:          w.Labels,
			Platforms:       pb.PlatformsFromSpec(w.Platforms),
			BuildkitVersion: s.buildkitVersion(),
			GCPolicy:        policies(w.GCPolicy),
			CDIDevices:      devicesOf(w.Devices),
		})
	}
	return res, nil
}

func devicesOf(list devices.Devices) []*apitypes.CDIDevice {
	var out []*apitypes.CDIDevice
	for _, d := range list {
		out = append(out, &apitypes.CDIDevice{Name: d.Name, AutoAllow: d.AutoAllow, Annotations: d.Annotations})
	}
	return out
}

func policies(rules []daemon.GCRule) []*apitypes.GCPolicy {
	list := make([]*apitypes.GCPolicy, 0, len(rules))
	for _, r := range rules {
		list = append(list, &apitypes.GCPolicy{
			All: r.All, KeepDuration: int64(r.KeepDuration), Filters: r.Filters,
			ReservedSpace: r.Reserved, MaxUsedSpace: r.MaxUsed, MinFreeSpace: r.MinFree,
		})
	}
	return list
}
