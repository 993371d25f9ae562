package exporter

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/filesync"
	"github.com/slipwaybuild/slipway/session/samehost"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// sendMethod is what a client announces when it takes outputs.
const sendMethod = "/moby.filesync.v1.FileSend/DiffCopy"

// ToClient calls send with a session of the build whose client takes outputs. It calls it once: a second client must not get
// half of an output.
func ToClient(ctx context.Context, sessions *session.Group, send func(context.Context, session.Caller) error) error {
	return ToClientWith(ctx, sessions, sendMethod, send)
}

// ToClientWith is [ToClient] for clients that announce another method.
func ToClientWith(ctx context.Context, sessions *session.Group, method string, send func(context.Context, session.Caller) error) error {
	var sendErr error
	err := sessions.Any(ctx, func(ctx context.Context, c session.Caller) error {
		if !c.Supports(method) {
			return fmt.Errorf("method %s %w", method, session.ErrNotSupported)
		}
		sendErr = send(ctx, c)
		return nil
	})
	if err != nil {
		return err
	}
	return sendErr
}

// Stream lets write fill the client's file for an output, itself if it lies on the host of in. md is told to the client. What is written
// counts only when write succeeds: on an error the client is told that the file is not whole. What goes through the session goes once:
// if the output is among in.Streams already, nothing is sent and the error is [ErrStreamBegun].
func Stream(ctx context.Context, in Input, c session.Caller, id int, md map[string]string, write func(io.Writer) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if s, err := in.Host.OpenStream(ctx, c, id, md); err == nil {
		if err = write(s); err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			s.Abort()
			return err
		}
		return s.Close()
	} else if !errors.Is(err, samehost.ErrUnavailable) {
		return err
	}
	if in.Streams.Begun(id) {
		return ErrStreamBegun
	}
	w, err := filesync.SendStream(ctx, c, id, md)
	if err != nil {
		return err
	}
	if err := write(&onceWriter{w: w, streams: in.Streams, id: id}); err != nil {
		// Cancelling gives the stream up. Closing it as well might overtake that, and tell the client that all is well.
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return w.Close()
}

// WriteTree writes a tree into the client's directory for an output, itself if that lies on this host. progress is told the bytes as
// they go.
func WriteTree(ctx context.Context, host *samehost.Host, c session.Caller, id int, tree fstree.Tree, progress func(int64)) error {
	t, err := host.OpenTree(ctx, c, id)
	if errors.Is(err, samehost.ErrUnavailable) {
		return filesync.SendTree(ctx, c, id, nil, ClientTree(tree), progress)
	}
	if err != nil {
		return err
	}
	return errors.Join(t.Write(ctx, ClientTree(tree), progress), t.Close())
}
