package control

import (
	"errors"
	"io"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/slipwaybuild/slipway/daemon/progresspb"
	"github.com/slipwaybuild/slipway/solver/progress"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// Status tells the whole story of a build, from its beginning to its end, whenever it is asked.
func (s *Service) Status(r *controlapi.StatusRequest, stream controlapi.Control_StatusServer) error {
	ctx := stream.Context()
	if err := sendTime(stream); err != nil {
		return err
	}
	reader, err := s.engine.Progress(ctx, r.Ref)
	if err != nil {
		return withCode(err)
	}
	defer reader.Close()
	for {
		batch, err := progresspb.Batch(func() (progress.Event, error) { return reader.Next(ctx) }, reader.Ready)
		if len(batch) > 0 {
			if sendErr := stream.Send(progresspb.Response(batch)); sendErr != nil {
				return sendErr
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return withCode(err)
		}
	}
}

// sendTime tells the client what time it is here, so that it can correct the times it is told for a clock that differs.
func sendTime(stream grpc.ServerStream) error {
	return stream.SendHeader(metadata.Pairs("buildkit-current-timestamp", time.Now().Format(time.RFC3339Nano)))
}
