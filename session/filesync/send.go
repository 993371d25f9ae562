package filesync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/moby/buildkit/session/filesync"
	"github.com/slipwaybuild/slipway/session"
	"github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// streamChunk is the length of a message of [SendStream], safely below gRPC's 4 MiB per message.
const streamChunk = 1 << 20

func openSend(ctx context.Context, c session.Caller, exporter int, md map[string]string) (filesync.FileSend_DiffCopyClient, error) {
	if !c.Supports(methodSend) {
		return nil, session.ErrNotSupported
	}
	out := metadata.MD{}
	for k, v := range md {
		encode(out, prefixExporterMD+k, []string{v})
	}
	out.Set(keyExporterID, strconv.Itoa(exporter))
	out.Set(keyMultiPlatform, "1")
	return filesync.NewFileSendClient(c.Conn()).DiffCopy(metadata.NewOutgoingContext(ctx, out))
}

// SendTree writes src into the client's target directory for the export. It is called once per export: a client that mirrors
// deletes what this one tree does not hold, so several platforms go as one tree. md is told to the client under
// exporter-md-*. progress is told the bytes sent since the last call, from several goroutines; it may be nil.
func SendTree(ctx context.Context, c session.Caller, exporter int, md map[string]string, src Tree, progress func(n int64)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := openSend(ctx, c, exporter, md)
	if err != nil {
		return fmt.Errorf("send tree: %w", err)
	}
	s := newSender(src, stream)
	s.progress = progress
	if err := s.run(ctx); err != nil {
		return fmt.Errorf("send tree: %w", err)
	}
	_ = stream.CloseSend() // a broken stream shows in RecvMsg
	// The client is done when its handler has returned.
	for {
		if err := stream.RecvMsg(&types.Packet{}); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("send tree: %w", err)
		}
	}
}

// SendStream opens the client's writer for the export. md is told to the client under exporter-md-*. Close sends the end and
// waits until the client has written everything; its error is the export's. When the client has the target already, writes
// succeed and go nowhere. Cancelling ctx before Close gives up: the client is told that what it has is not complete.
func SendStream(ctx context.Context, c session.Caller, exporter int, md map[string]string) (io.WriteCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := openSend(ctx, c, exporter, md)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("send stream: %w", err)
	}
	return &streamWriter{ctx: ctx, cancel: cancel, stream: stream, buf: make([]byte, 0, streamChunk)}, nil
}

// streamWriter belongs to one goroutine.
type streamWriter struct {
	ctx    context.Context // of the stream, for its cause
	cancel context.CancelFunc
	stream filesync.FileSend_DiffCopyClient
	buf    []byte
	err    error
	exists bool
	closed bool
}

// Write gathers small pieces, so that an archive's many headers are not a message each.
func (w *streamWriter) Write(p []byte) (int, error) {
	if w.closed {
		return 0, errors.New("send stream: write after close")
	}
	total := len(p)
	for len(p) > 0 && w.err == nil && !w.exists {
		n := copy(w.buf[len(w.buf):cap(w.buf)], p)
		w.buf, p = w.buf[:len(w.buf)+n], p[n:]
		if len(w.buf) == cap(w.buf) {
			w.flush()
		}
	}
	if w.err != nil {
		return total - len(p), w.err
	}
	return total, nil
}

func (w *streamWriter) flush() {
	if len(w.buf) == 0 || w.err != nil || w.exists {
		return
	}
	err := w.stream.Send(&filesync.BytesMessage{Data: w.buf})
	w.buf = w.buf[:0]
	if errors.Is(err, io.EOF) {
		// The stream is over; the reason is at the other end of it.
		if err = w.result(); err == nil && !w.exists {
			err = errors.New("the client ended the export before its end")
		}
	}
	w.fail(err)
}

// result waits for the client's word; nil is success.
func (w *streamWriter) result() error {
	for {
		_, err := w.stream.Recv()
		switch {
		case err == nil:
			continue
		case errors.Is(err, io.EOF):
			return nil
		case status.Code(err) == codes.AlreadyExists:
			w.exists = true
			return nil
		}
		return err
	}
}

func (w *streamWriter) fail(err error) {
	if err != nil && w.err == nil {
		w.err = fmt.Errorf("send stream: %w", err)
	}
}

// Close ends the export. A second call returns what the first did.
func (w *streamWriter) Close() error {
	if w.closed {
		return w.err
	}
	w.flush()
	w.closed = true
	defer w.cancel()
	// An end that is sent after giving up would tell the client that its file is whole.
	if w.ctx.Err() != nil {
		w.fail(context.Cause(w.ctx))
	}
	if w.err != nil || w.exists {
		return w.err
	}
	if err := w.stream.CloseSend(); err != nil {
		w.fail(err)
		return w.err
	}
	w.fail(w.result())
	return w.err
}
