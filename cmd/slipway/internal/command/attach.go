package command

import (
	"context"
	"errors"
	"os"

	"github.com/slipwaybuild/slipway/cmd/slipway/internal/builds"
	"github.com/slipwaybuild/slipway/cmd/slipway/internal/display"
	"github.com/slipwaybuild/slipway/cmd/slipway/internal/remote"
	"github.com/spf13/cobra"
)

func newAttach(g *global, s Streams) *cobra.Command {
	var progress string
	cmd := &cobra.Command{
		Use:   "attach [flags] ID",
		Short: "Show a build from its beginning, and end as it does",
		Long: `Show a build from its beginning, and end as it does: with the exit code that the build's own command has or had.

Any build that the daemon knows can be watched, whoever started it and whether it runs or has ended. Ctrl-C ends the watching and
not the build; see slipway cancel.`,
		Args: exactArgs(1, "a build id, or the beginning of one"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := display.Check(progress); err != nil {
				return usageError{err}
			}
			return watch(cmd.Context(), g, s, args[0], func(ctx context.Context, d *remote.Daemon, ref string) error {
				if err := display.Follow(ctx, d.Control, ref, progress, s.Err); err != nil {
					return err
				}
				r, err := builds.Wait(ctx, d.Control, ref)
				if err != nil {
					return err
				}
				return builds.Outcome(ctx, d.Content, r)
			})
		},
	}
	cmd.Flags().StringVar(&progress, "progress", progressDefault(), "how progress is shown: auto, tty, plain, quiet or rawjson")
	return cmd
}

func newLogs(g *global, s Streams) *cobra.Command {
	return &cobra.Command{
		Use:   "logs ID",
		Short: "Print what a build said, as plain text",
		Long:  `Print what a build said, as plain text, from its beginning; of a build that runs, until it ends. How it ended has no part in the exit code.`,
		Args:  exactArgs(1, "a build id, or the beginning of one"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return watch(cmd.Context(), g, s, args[0], func(ctx context.Context, d *remote.Daemon, ref string) error {
				return display.Follow(ctx, d.Control, ref, "plain", s.Out)
			})
		},
	}
}

// watch calls show with the id of the build that is meant. Who stops watching has seen enough; that is no error.
func watch(ctx context.Context, g *global, s Streams, id string, show func(context.Context, *remote.Daemon, string) error) error {
	if err := g.slipwaydOnly("docker buildx history logs"); err != nil {
		return err
	}
	d, err := remote.Connect(ctx, g.addr, true, s.Err)
	if err != nil {
		return err
	}
	defer d.Close()
	r, err := builds.Find(ctx, d.Control, id)
	if err != nil {
		return err
	}
	err = show(ctx, d, r.Ref)
	if ctx.Err() != nil {
		return exitError(exitInterrupt)
	}
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
