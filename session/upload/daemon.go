package upload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	pb "github.com/moby/buildkit/session/upload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/slipwaybuild/slipway/session"
)

// Pull opens the upload at the URL's host and path; the first session that has it serves. Reading ends with io.EOF only when all of it
// was received. ctx covers reading too. The caller closes the reader. The error wraps ErrNotFound when the sessions that could be
// asked have no such upload.
func Pull(ctx context.Context, g *session.Group, host, path string) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	var r *reader
	asked := false
	err := g.Any(ctx, func(ctx context.Context, c session.Caller) error {
		out := metadata.NewOutgoingContext(ctx, metadata.Pairs(keyPath, path, keyHost, host))
		stream, err := pb.NewUploadClient(c.Conn()).Pull(out)
		if err != nil {
			return err
		}
		// Opening a stream succeeds always; only the first message tells whether there is something.
		first, err := stream.Recv()
		switch {
		case err == nil || errors.Is(err, io.EOF):
			r = &reader{stream: stream, rest: first.GetData(), err: err, cancel: cancel}
			return nil
		case absent(err):
			asked = true
			return fmt.Errorf("%w: %w", session.ErrNotSupported, err)
		}
		return err
	})
	if err == nil {
		return r, nil
	}
	cancel()
	if asked && errors.Is(err, session.ErrNoSession) {
		return nil, fmt.Errorf("upload http://%s%s: %w", host, path, ErrNotFound)
	}
	return nil, fmt.Errorf("upload http://%s%s: %w", host, path, err)
}

// absent recognises a client that does not have the upload; BuildKit's has no code for it.
func absent(err error) bool {
	switch status.Code(err) {
	case codes.NotFound, codes.Unimplemented:
		return true
	case codes.Unknown:
		return strings.Contains(status.Convert(err).Message(), "no http response from session")
	default:
		return false
	}
}

type reader struct {
	stream grpc.BidiStreamingClient[message, message]
	rest   []byte
	err    error // what to return once rest is used up
	cancel context.CancelFunc
}

func (r *reader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		m, err := r.stream.Recv()
		r.rest, r.err = m.GetData(), err
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// Close gives up what was not read.
func (r *reader) Close() error {
	r.cancel()
	return nil
}
