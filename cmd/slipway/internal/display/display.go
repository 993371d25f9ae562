// Package display shows a build's progress, drawn by BuildKit's progressui.
package display

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"
)

// Modes are the values of --progress.
var modes = []string{"auto", "tty", "plain", "quiet", "rawjson", "none"}

// Check refuses a mode that does not exist.
func Check(mode string) error {
	for _, m := range modes {
		if m == mode {
			return nil
		}
	}
	return fmt.Errorf("invalid progress mode %q: use auto, tty, plain, quiet or rawjson", mode)
}

// Follow reads the build's progress to its end and draws it on out, and the warnings after it. It never holds the build up: the
// daemon keeps the story.
func Follow(ctx context.Context, ctl controlapi.ControlClient, ref, mode string, out *os.File) error {
	stream, err := ctl.Status(ctx, &controlapi.StatusRequest{Ref: ref})
	if err != nil {
		return fmt.Errorf("follow the build: %w", err)
	}
	return Show(ctx, mode, out, func(statuses chan<- *client.SolveStatus) error { return read(ctx, stream, statuses) })
}

// Show draws what feed sends, on out, until feed returns; feed runs in a goroutine of its own, and what it sends is always taken.
func Show(ctx context.Context, mode string, out *os.File, feed func(chan<- *client.SolveStatus) error) error {
	statuses := make(chan *client.SolveStatus)
	var feedErr error
	go func() {
		defer close(statuses)
		feedErr = feed(statuses)
	}()
	err := draw(ctx, statuses, mode, out)
	// What is drawn no more is read on, so that the feed ends.
	for range statuses {
	}
	return errors.Join(err, feedErr)
}

func read(ctx context.Context, stream controlapi.Control_StatusClient, statuses chan<- *client.SolveStatus) error {
	for {
		res, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("follow the build: %w", err)
		}
		select {
		case statuses <- client.NewSolveStatus(res):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func draw(ctx context.Context, statuses chan *client.SolveStatus, mode string, out *os.File) error {
	switch mode {
	case "rawjson":
		return rawJSON(statuses, out)
	case "quiet":
		return quiet(statuses, out)
	}
	d, err := progressui.NewDisplay(out, progressui.DisplayMode(mode))
	if err != nil {
		return err
	}
	// The display outlives a cancelled build by what the daemon still says about its end.
	warnings, err := d.UpdateFrom(context.WithoutCancel(ctx), statuses)
	return errors.Join(err, printWarnings(out, warnings))
}

func rawJSON(statuses <-chan *client.SolveStatus, out io.Writer) error {
	enc := json.NewEncoder(out)
	for s := range statuses {
		if err := enc.Encode(s); err != nil {
			return fmt.Errorf("write progress: %w", err)
		}
	}
	return nil
}
