package command

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/slipwaybuild/slipway/cmd/slipway/internal/builds"
	"github.com/slipwaybuild/slipway/cmd/slipway/internal/remote"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
)

// shortID is how many characters of a build's id are shown; they are as good as all of it until two builds share them.
const shortID = 12

func newLs(g *global, s Streams) *cobra.Command {
	var quiet, whole, running bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List builds that run and have run, newest first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := g.slipwaydOnly("docker buildx history ls"); err != nil {
				return err
			}
			d, err := remote.Connect(cmd.Context(), g.addr, true, s.Err)
			if err != nil {
				return err
			}
			defer d.Close()
			list, err := builds.List(cmd.Context(), d.Control)
			if err != nil {
				return err
			}
			var shown []*controlapi.BuildHistoryRecord
			for _, r := range list {
				if !running || builds.Running(r) {
					shown = append(shown, r)
				}
			}
			return printBuilds(s.Out, shown, quiet, whole, time.Now())
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&quiet, "quiet", "q", false, "show ids only")
	fs.BoolVar(&whole, "no-trunc", false, "show whole ids")
	fs.BoolVar(&running, "running", false, "show only builds that run")
	return cmd
}

func printBuilds(w io.Writer, list []*controlapi.BuildHistoryRecord, quiet, whole bool, now time.Time) error {
	tw := tabwriter.NewWriter(w, 1, 8, 2, ' ', 0)
	if !quiet {
		fmt.Fprintln(tw, "ID\tNAME\tSTATUS\tSTEPS\tDURATION\tCREATED")
	}
	for _, r := range list {
		id := r.Ref
		if !whole && len(id) > shortID {
			id = id[:shortID]
		}
		if quiet {
			fmt.Fprintln(tw, id)
			continue
		}
		ended := now
		if !builds.Running(r) {
			ended = r.CompletedAt.AsTime()
		}
		created := r.CreatedAt.AsTime()
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s ago\n", id, builds.Name(r), buildStatus(r), buildSteps(r),
			max(ended.Sub(created), 0).Round(100*time.Millisecond), units.HumanDuration(max(now.Sub(created), 0)))
	}
	return tw.Flush()
}

func buildStatus(r *controlapi.BuildHistoryRecord) string {
	switch {
	case builds.Running(r):
		return "running"
	case r.Error == nil:
		return "done"
	case codes.Code(r.Error.Code) == codes.Canceled:
		return "canceled"
	}
	return "failed"
}

// buildSteps says how many of the steps needed no work, such as "3/8 cached", and of a build that runs how far it is.
func buildSteps(r *controlapi.BuildHistoryRecord) string {
	s := fmt.Sprintf("%d/%d cached", r.NumCachedSteps, r.NumTotalSteps)
	if builds.Running(r) {
		s = fmt.Sprintf("%d/%d done, ", r.NumCompletedSteps, r.NumTotalSteps) + s
	}
	return s
}
