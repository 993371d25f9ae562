package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/slipwaybuild/slipway/session/interceptors"
	"google.golang.org/grpc/codes"
)

// maxFile is how much of a file fits one answer, in bytes.
const maxFile = interceptors.MaxMessage - 1<<10

// ReadFile reads a file, or a range of it. What does not fit a message is refused: the client reads it in ranges.
func (g *Gateway) ReadFile(ctx context.Context, r *gwpb.ReadFileRequest) (*gwpb.ReadFileResponse, error) {
	return read(ctx, g, r.Ref, func(ctx context.Context, ref gwclient.Reference) (*gwpb.ReadFileResponse, error) {
		req := gwclient.ReadRequest{Filename: r.FilePath, Range: &gwclient.FileRange{Length: maxFile + 1}}
		if n := r.Range; n != nil {
			if n.Offset < 0 || n.Length < 0 {
				return nil, invalid("a file range with a negative offset or length")
			}
			req.Range.Offset = int(n.Offset)
			if n.Length > 0 && n.Length <= maxFile {
				req.Range.Length = int(n.Length)
			}
		}
		data, err := ref.ReadFile(ctx, req)
		if err == nil && len(data) > maxFile {
			err = tooBig(r.FilePath)
		}
		if err != nil {
			return nil, err
		}
		return &gwpb.ReadFileResponse{Data: data}, nil
	})
}

func tooBig(name string) error {
	return grpcerrors.WrapCode(fmt.Errorf("read %s: more than the %d bytes that fit an answer", name, maxFile), codes.ResourceExhausted)
}

// ReadDir lists a directory.
func (g *Gateway) ReadDir(ctx context.Context, r *gwpb.ReadDirRequest) (*gwpb.ReadDirResponse, error) {
	return read(ctx, g, r.Ref, func(ctx context.Context, ref gwclient.Reference) (*gwpb.ReadDirResponse, error) {
		entries, err := ref.ReadDir(ctx, gwclient.ReadDirRequest{Path: r.DirPath, IncludePattern: r.IncludePattern})
		if err != nil {
			return nil, err
		}
		return &gwpb.ReadDirResponse{Entries: entries}, nil
	})
}

// StatFile describes a file.
func (g *Gateway) StatFile(ctx context.Context, r *gwpb.StatFileRequest) (*gwpb.StatFileResponse, error) {
	return read(ctx, g, r.Ref, func(ctx context.Context, ref gwclient.Reference) (*gwpb.StatFileResponse, error) {
		st, err := ref.StatFile(ctx, gwclient.StatRequest{Path: r.Path})
		if err != nil {
			return nil, err
		}
		return &gwpb.StatFileResponse{Stat: st}, nil
	})
}

// Evaluate runs what the reference stands for.
func (g *Gateway) Evaluate(ctx context.Context, r *gwpb.EvaluateRequest) (*gwpb.EvaluateResponse, error) {
	return read(ctx, g, r.Ref, func(ctx context.Context, ref gwclient.Reference) (*gwpb.EvaluateResponse, error) {
		return &gwpb.EvaluateResponse{}, ref.Evaluate(ctx)
	})
}

// read does something with a reference. A file that is not there is codes.NotFound.
func read[T any](ctx context.Context, g *Gateway, id string, do func(context.Context, gwclient.Reference) (T, error)) (T, error) {
	return call(ctx, g, func(ctx context.Context) (res T, err error) {
		ref, err := g.refs.find(id)
		if err != nil {
			return res, err
		}
		res, err = do(ctx, ref)
		return res, missing(err)
	})
}

// missing gives the error about a file that is not there its code.
func missing(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) && errors.Is(path, fs.ErrNotExist) {
		return grpcerrors.WrapCode(err, codes.NotFound)
	}
	return err
}
