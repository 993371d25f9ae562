package command

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/slipwaybuild/slipway/cmd/slipway/internal/builds"
	"github.com/slipwaybuild/slipway/cmd/slipway/internal/remote"
	"github.com/spf13/cobra"
)

// endTime is how long a build that was cancelled may take to end.
const endTime = time.Minute

func newCancel(g *global, s Streams) *cobra.Command {
	return &cobra.Command{
		Use:   "cancel ID...",
		Short: "End builds that run",
		Long:  `End builds that run, whatever client started them, and wait until they have ended. Only one's own builds can be ended; root can end all.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{fmt.Errorf("%q requires at least one build id; see %s --help", cmd.CommandPath(), cmd.CommandPath())}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := g.slipwaydOnly("Ctrl-C"); err != nil {
				return err
			}
			d, err := remote.Connect(cmd.Context(), g.addr, true, s.Err)
			if err != nil {
				return err
			}
			defer d.Close()
			var errs []error
			for _, id := range args {
				ref, err := cancelBuild(cmd.Context(), d, id)
				if err != nil {
					errs = append(errs, err)
					continue
				}
				fmt.Fprintln(s.Out, ref)
			}
			return errors.Join(errs...)
		},
	}
}

// cancelBuild returns the build's whole id once it has ended.
func cancelBuild(ctx context.Context, d *remote.Daemon, id string) (string, error) {
	r, err := builds.Find(ctx, d.Control, id)
	if err != nil {
		return "", err
	}
	if !builds.Running(r) {
		return "", fmt.Errorf("build %s has ended", r.Ref)
	}
	if err := d.CancelBuild(ctx, r.Ref); err != nil {
		return "", err
	}
	ctx, stop := context.WithTimeout(ctx, endTime)
	defer stop()
	if _, err := builds.Wait(ctx, d.Control, r.Ref); err != nil {
		return "", err
	}
	return r.Ref, nil
}
