package command

import (
	"context"
	"fmt"
	"runtime"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/slipwaybuild/slipway/cmd/internal/version"
	"github.com/slipwaybuild/slipway/cmd/slipway/internal/dockerengine"
	"github.com/slipwaybuild/slipway/cmd/slipway/internal/dockerhost"
	"github.com/slipwaybuild/slipway/cmd/slipway/internal/remote"
	"github.com/spf13/cobra"
)

// daemonTime is how long a daemon may take to say its version.
const daemonTime = 2 * time.Second

func newVersion(g *global, s Streams) *cobra.Command {
	var client bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show the versions of the command and of a running daemon",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintf(s.Out, "slipway  %s %s/%s %s\n", version.String(), runtime.GOOS, runtime.GOARCH, runtime.Version())
			if client {
				return nil
			}
			e, err := g.docker()
			if err != nil {
				return usageError{err}
			}
			if e != nil {
				fmt.Fprintf(s.Out, "docker   %s\n", dockerVersion(cmd.Context(), e))
				return nil
			}
			fmt.Fprintf(s.Out, "slipwayd %s\n", daemonVersion(cmd.Context(), g.addr))
			return nil
		},
	}
	cmd.Flags().BoolVar(&client, "client", false, "ask no daemon")
	return cmd
}

// dockerVersion asks Docker's daemon.
func dockerVersion(ctx context.Context, e *dockerhost.Endpoint) string {
	ctx, cancel := context.WithTimeout(ctx, daemonTime)
	defer cancel()
	c, err := dockerengine.Connect(ctx, e.Dial)
	if err != nil {
		return "not answering: " + message(err)
	}
	defer c.Close()
	return fmt.Sprintf("%s, API %s, at %s (%s)", c.Engine.Server, c.Engine.API, e.Host, e.Origin)
}

// daemonVersion asks the daemon, and starts none for it.
func daemonVersion(ctx context.Context, addr string) string {
	ctx, cancel := context.WithTimeout(ctx, daemonTime)
	defer cancel()
	d, err := remote.Connect(ctx, addr, false, nil)
	if err != nil {
		return "not running"
	}
	defer d.Close()
	info, err := d.Control.Info(ctx, &controlapi.InfoRequest{})
	if err != nil {
		return "not answering: " + message(err)
	}
	return info.GetBuildkitVersion().GetVersion()
}
