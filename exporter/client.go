package exporter

import (
	"context"
	"fmt"
	"io"

	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/filesync"
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

// Stream lets write fill the client's file for an output. md is told to the client. What is written counts only when write
// succeeds: on an error the client is told that the file is not whole. If the output is among streams already, nothing is sent and the
// error is [ErrStreamBegun].
func Stream(ctx context.Context, c session.Caller, streams *Streams, id int, md map[string]string, write func(io.Writer) error) error {
	if streams.Begun(id) {
		return ErrStreamBegun
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := filesync.SendStream(ctx, c, id, md)
	if err != nil {
		return err
	}
	if err := write(&onceWriter{w: w, streams: streams, id: id}); err != nil {
		// Cancelling gives the stream up. Closing it as well might overtake that, and tell the client that all is well.
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return w.Close()
}
