package filesync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/moby/buildkit/session/filesync"
	"github.com/slipwaybuild/slipway/session"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Target is where a client wants one export. Exactly one of Dir and Open is set.
type Target struct {
	// Dir is a directory to write a tree into; it is made if missing. What is there stays unless it is replaced.
	Dir string
	// KeepOwner keeps the owners of the tree, which needs the right to; otherwise everything belongs to the user who runs the
	// client.
	KeepOwner bool
	// Delete removes what is in Dir and not in the tree.
	Delete bool
	// Open opens the writer of a stream: a tar, or an image archive. md is what the exporter says about it (the response's
	// metadata). A nil writer without error says that the target has it already. The writer is closed once, also when the
	// stream breaks; its own type may tell the two apart, see [Aborter]. An error of Close is the export's.
	Open func(md map[string]string) (io.WriteCloser, error)
}

// Aborter is implemented by a target's writer that wants to know that what was written is not complete. Abort is called
// before Close.
type Aborter interface{ Abort(cause error) }

// NewTarget returns the attachable that takes exports, by exporter id: the place of the export in the build request. A daemon
// that names no id means 0.
func NewTarget(targets map[int]Target) session.Attachable { return &target{targets} }

type target struct{ targets map[int]Target }

// Register implements [session.Attachable].
func (t *target) Register(s *grpc.Server) { filesync.RegisterFileSendServer(s, t) }

// DiffCopy takes one export.
func (t *target) DiffCopy(stream filesync.FileSend_DiffCopyServer) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	id, err := exporterID(md)
	if err != nil {
		return err
	}
	to, ok := t.targets[id]
	if !ok {
		return status.Errorf(codes.NotFound, "exporter %d not found", id)
	}
	if to.Open != nil {
		return receiveStream(stream, to.Open, md)
	}
	if to.Delete && first(md, keyMultiPlatform) != "1" {
		return status.Error(codes.FailedPrecondition, "the daemon may send the platforms of one export one by one, so nothing can be deleted: it is too old for mode=delete")
	}
	return receiveTree(stream.Context(), stream, to)
}

func exporterID(md metadata.MD) (int, error) {
	s := first(md, keyExporterID)
	if s == "" {
		return 0, nil
	}
	id, err := strconv.Atoi(s)
	if err != nil {
		return 0, status.Errorf(codes.InvalidArgument, "exporter id %q is no number", clip(s))
	}
	return id, nil
}

// exporterMD returns what the exporter said about the stream.
func exporterMD(md metadata.MD) (map[string]string, error) {
	out := map[string]string{}
	for k := range md {
		name, ok := strings.CutPrefix(k, prefixExporterMD)
		if !ok || strings.HasSuffix(name, suffixEncoded) {
			continue
		}
		values, err := decode(md, k)
		if err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
		out[name] = strings.Join(values, ",")
	}
	return out, nil
}

func receiveStream(stream filesync.FileSend_DiffCopyServer, open func(map[string]string) (io.WriteCloser, error), md metadata.MD) (err error) {
	about, err := exporterMD(md)
	if err != nil {
		return err
	}
	w, err := open(about)
	if err != nil {
		return err
	}
	if w == nil {
		return status.Error(codes.AlreadyExists, "target already exists")
	}
	defer func() {
		if a, ok := w.(Aborter); ok && err != nil {
			a.Abort(err)
		}
		if cerr := w.Close(); err == nil {
			err = cerr
		}
	}()
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := w.Write(m.Data); err != nil {
			return fmt.Errorf("write export: %w", err)
		}
	}
}

func receiveTree(ctx context.Context, stream peerStream, to Target) error {
	w, err := newTreeWriter(to)
	if err != nil {
		return err
	}
	err = w.receive(ctx, stream)
	if cerr := w.close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("export to %s: %w", to.Dir, err)
	}
	return nil
}
