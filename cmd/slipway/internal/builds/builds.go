// Package builds finds the builds that a daemon knows, and says how they ended.
package builds

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/util/grpcerrors"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// ErrNone says that no build has an id.
var ErrNone = errors.New("no such build")

// List returns the records of the builds that run and have run, newest first.
func List(ctx context.Context, api controlapi.ControlClient) ([]*controlapi.BuildHistoryRecord, error) {
	stream, err := api.ListenBuildHistory(ctx, &controlapi.BuildHistoryRequest{EarlyExit: true})
	if err != nil {
		return nil, fmt.Errorf("list builds: %w", err)
	}
	var list []*controlapi.BuildHistoryRecord
	for {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("list builds: %w", err)
		}
		if ev.Record != nil {
			list = append(list, ev.Record)
		}
	}
	slices.SortStableFunc(list, func(a, b *controlapi.BuildHistoryRecord) int {
		return cmp.Compare(b.CreatedAt.AsTime().UnixNano(), a.CreatedAt.AsTime().UnixNano())
	})
	return list, nil
}

// Find returns the record of the build whose id is, or begins with, id. ErrNone if there is none; an id that several begin with is
// an error too.
func Find(ctx context.Context, api controlapi.ControlClient, id string) (*controlapi.BuildHistoryRecord, error) {
	list, err := List(ctx, api)
	if err != nil {
		return nil, err
	}
	return match(list, id)
}

func match(list []*controlapi.BuildHistoryRecord, id string) (found *controlapi.BuildHistoryRecord, err error) {
	if id == "" {
		return nil, errors.New("an empty build id")
	}
	for _, r := range list {
		switch {
		case r.Ref == id:
			return r, nil
		case !strings.HasPrefix(r.Ref, id):
		case found == nil:
			found = r
		default:
			err = fmt.Errorf("several builds have an id that begins with %s", id)
		}
	}
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, fmt.Errorf("%w: %s", ErrNone, id)
	}
	return found, nil
}

// Running tells whether a build has not ended.
func Running(r *controlapi.BuildHistoryRecord) bool { return r.CompletedAt == nil }

// Wait returns the record of a build once it has ended.
func Wait(ctx context.Context, api controlapi.ControlClient, ref string) (*controlapi.BuildHistoryRecord, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := api.ListenBuildHistory(ctx, &controlapi.BuildHistoryRequest{Ref: ref})
	if err != nil {
		return nil, fmt.Errorf("wait for build %s: %w", ref, err)
	}
	for {
		ev, err := stream.Recv()
		switch {
		case err != nil:
			return nil, fmt.Errorf("wait for build %s: %w", ref, err)
		case ev.Type == controlapi.BuildHistoryEventType_DELETED:
			return nil, fmt.Errorf("%w any more: %s", ErrNone, ref)
		case ev.Record != nil && !Running(ev.Record):
			return ev.Record, nil
		}
	}
}

// maxError bounds the details of an error, in bytes.
const maxError = 4 << 20

// Outcome is the error that a build ended with, nil if it went well, with all that the daemon still knows of it.
func Outcome(ctx context.Context, content contentapi.ContentClient, r *controlapi.BuildHistoryRecord) error {
	if r.Error == nil {
		return nil
	}
	short := grpcerrors.FromGRPC(status.ErrorProto(&spb.Status{Code: r.Error.Code, Message: r.Error.Message}))
	if r.ExternalError == nil || r.ExternalError.Size > maxError {
		return short
	}
	b, err := read(ctx, content, r.ExternalError.Digest)
	full := &spb.Status{}
	if err != nil || proto.Unmarshal(b, full) != nil || codes.Code(full.Code) == codes.OK {
		return short // where it went wrong is said in it, too
	}
	return grpcerrors.FromGRPC(status.ErrorProto(full))
}

func read(ctx context.Context, content contentapi.ContentClient, digest string) ([]byte, error) {
	stream, err := content.Read(ctx, &contentapi.ReadContentRequest{Digest: digest})
	if err != nil {
		return nil, err
	}
	var b []byte
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return b, nil
		}
		if err != nil {
			return nil, err
		}
		if b = append(b, part.Data...); len(b) > maxError {
			return nil, errors.New("too large")
		}
	}
}
