package command

import (
	"cmp"
	"context"
	"fmt"
	"os"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"github.com/slipwaybuild/slipway/cmd/slipway/internal/display"
	"github.com/slipwaybuild/slipway/cmd/slipway/internal/dockerengine"
	"github.com/slipwaybuild/slipway/cmd/slipway/internal/dockerhost"
	"github.com/slipwaybuild/slipway/cmd/slipway/internal/request"
	"github.com/slipwaybuild/slipway/session/dial"
)

// buildByDocker builds with Docker's daemon, as docker's own command does.
func buildByDocker(ctx context.Context, e *dockerhost.Endpoint, o buildOptions, s Streams) error {
	b, err := request.PrepareDocker(ctx, o.Options, s.In, s.Out)
	if err != nil {
		return usageError{err}
	}
	defer b.Session.Close()
	if err := checkFiles(o, b.Outputs); err != nil {
		return usageError{err}
	}
	c, err := dockerengine.Connect(ctx, e.Dial)
	if err != nil {
		return err
	}
	defer c.Close()
	if o.progress != "quiet" && o.progress != "rawjson" {
		fmt.Fprintf(s.Err, "slipway: building with %s at %s (%s)\n", cmp.Or(c.Engine.Server, "Docker's daemon"), e.Host, e.Origin)
	}
	warnings, err := b.Suit(c.Engine)
	if err != nil {
		return usageError{err}
	}
	for _, w := range warnings {
		fmt.Fprintln(s.Err, "WARNING:", w)
	}
	id, err := runByDocker(ctx, e, c, b, o.progress, s.Err)
	if err != nil {
		return err
	}
	answer := map[string]string{}
	if id != "" {
		answer[keyDigest] = id
	}
	return finish(o, b.ID, answer, s)
}

// runByDocker runs the session, the build and its display side by side. The build's error is the one that counts.
func runByDocker(ctx context.Context, e *dockerhost.Endpoint, c *dockerengine.Client, b *request.DockerBuild, progress string, out *os.File) (id string, err error) {
	// A build whose session could not be opened waits for it in vain.
	building, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	sessionDone := make(chan error, 1)
	go func() {
		err := b.Session.Run(context.WithoutCancel(ctx), dial.HTTP(e.Dial))
		if err != nil {
			giveUp(err)
		}
		sessionDone <- err
	}()
	showErr := display.Show(ctx, progress, out, func(statuses chan<- *client.SolveStatus) error {
		id, err = c.Build(building, dockerengine.Build{ID: b.ID, Query: b.Query, Upload: b.Upload}, func(r *controlapi.StatusResponse) {
			statuses <- client.NewSolveStatus(r)
		})
		return nil
	})
	_ = b.Session.Close() // what is wrong with it, Run says
	if sessionErr := <-sessionDone; sessionErr != nil {
		return "", sessionErr
	}
	if err == nil {
		err = showErr
	}
	return id, err
}
