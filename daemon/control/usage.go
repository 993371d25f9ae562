package control

import (
	"context"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/pkg/filters"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/slipwaybuild/slipway/daemon"
	"github.com/slipwaybuild/slipway/solver/layers"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// wholeUsage is the metadata by which a client asks also for what is no cache, so that the sizes add up to what is on disk.
// BuildKit's clients take every record for cache that a prune can remove.
const wholeUsage = "slipway-whole-usage"

// DiskUsage lists what is on disk.
func (s *Service) DiskUsage(ctx context.Context, r *controlapi.DiskUsageRequest) (*controlapi.DiskUsageResponse, error) {
	match, err := daemon.ParseUsageFilter(r.Filter)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	list, err := s.engine.Usage(ctx)
	if err != nil {
		return nil, withCode(err)
	}
	res := &controlapi.DiskUsageResponse{}
	whole := len(metadata.ValueFromIncomingContext(ctx, wholeUsage)) > 0
	for _, u := range list {
		if !whole && (u.Own || u.Retired) {
			continue
		}
		if r.AgeLimit > 0 && time.Since(u.LastUsedAt) < time.Duration(r.AgeLimit) {
			continue
		}
		if match(u) {
			res.Record = append(res.Record, usageRecord(u))
		}
	}
	return res, nil
}

// Prune removes what nobody uses, sending a record of each as it goes.
func (s *Service) Prune(r *controlapi.PruneRequest, stream controlapi.Control_PruneServer) error {
	match, err := daemon.ParseUsageFilter(r.Filter)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	var sendErr error
	err = s.engine.Prune(ctx, layers.PruneOptions{
		Filter:       match,
		KeepDuration: time.Duration(r.KeepDuration),
		MaxUsed:      r.MaxUsedSpace,
		Reserved:     r.ReservedSpace,
		MinFree:      r.MinFreeSpace,
		All:          r.All,
	}, func(u layers.Usage) {
		if sendErr == nil {
			if sendErr = stream.Send(usageRecord(u)); sendErr != nil {
				cancel()
			}
		}
	})
	if sendErr != nil {
		return sendErr
	}
	if err != nil {
		return withCode(err)
	}
	return nil
}

func usageRecord(u layers.Usage) *controlapi.UsageRecord {
	return &controlapi.UsageRecord{
		ID: u.ID, Parents: u.Parents, Mutable: u.Mutable, InUse: u.InUse, Size: u.Size, Shared: u.Shared,
		Description: u.Description, RecordType: string(u.Use), UsageCount: int64(u.UsageCount),
		CreatedAt: timestamppb.New(u.CreatedAt), LastUsedAt: timestamppb.New(u.LastUsedAt),
	}
}

func workerAdaptor(w daemon.Worker) filters.Adaptor {
	return filters.AdapterFunc(func(path []string) (string, bool) {
		if len(path) == 0 {
			return "", false
		}
		switch path[0] {
		case "id":
			return w.ID, true
		case "labels":
			v, ok := w.Labels[strings.Join(path[1:], ".")]
			return v, ok
		}
		return "", false
	})
}
