package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/slipwaybuild/slipway/cmd/slipway/internal/detach"
	"github.com/slipwaybuild/slipway/session"
)

// buildDetached has a process in the background build, and returns when the daemon has the build.
func buildDetached(g *global, o buildOptions, s Streams) error {
	ref := session.NewID()
	err := detach.Start(g.args, ref, stdinFor(o, s))
	var failed *detach.Failed
	if errors.As(err, &failed) {
		fmt.Fprint(s.Err, failed.Said)
		return exitError(failed.Code)
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(s.Out, ref)
	return nil
}

// stdinFor is what the process in the background reads: nothing, unless the build wants it.
func stdinFor(o buildOptions, s Streams) *os.File {
	if o.Context != "-" && o.File != "-" {
		return nil
	}
	f, _ := s.In.(*os.File)
	return f
}

// tellParent lets the parent go once the daemon has the build. The function it returns must be called when the build is over; a parent that was
// told nothing by then learns why from the log.
func tellParent(ctx context.Context, api controlapi.ControlClient, ref string) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		stream, err := api.Status(ctx, &controlapi.StatusRequest{Ref: ref})
		if err == nil {
			_, err = stream.Recv()
		}
		if err == nil || errors.Is(err, io.EOF) {
			detach.Begun()
		}
	}()
	return func() {
		// A build may be over sooner than its story was asked for.
		timer := time.AfterFunc(lastWords, cancel)
		<-done
		timer.Stop()
		cancel()
	}
}

// plainly is the progress mode for a log.
func plainly(mode string) string {
	if slices.Contains([]string{"auto", "tty"}, mode) {
		return "plain"
	}
	return mode
}
