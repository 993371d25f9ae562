package command

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/slipwaybuild/slipway/cmd/slipway/internal/remote"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/metadata"
)

func newDu(g *global, s Streams) *cobra.Command {
	var filter []string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "du",
		Short: "Show what the daemon keeps on disk",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := g.slipwaydOnly("docker system df"); err != nil {
				return err
			}
			d, err := remote.Connect(cmd.Context(), g.addr, true, s.Err)
			if err != nil {
				return err
			}
			defer d.Close()
			res, err := d.Control.DiskUsage(metadata.AppendToOutgoingContext(cmd.Context(), "slipway-whole-usage", "1"), &controlapi.DiskUsageRequest{Filter: filter})
			if err != nil {
				return err
			}
			slices.SortFunc(res.Record, func(a, b *controlapi.UsageRecord) int { return cmp.Compare(b.Size, a.Size) })
			return printUsage(s.Out, res.Record, verbose)
		},
	}
	cmd.Flags().StringArrayVar(&filter, "filter", nil, "show only what matches, such as type==exec.cachemount or inuse")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "show everything that is known")
	return cmd
}

func printUsage(w io.Writer, records []*controlapi.UsageRecord, verbose bool) error {
	tw := tabwriter.NewWriter(w, 1, 8, 2, ' ', 0)
	if !verbose {
		fmt.Fprintln(tw, "ID\tRECLAIMABLE\tSIZE\tLAST ACCESSED\tDESCRIPTION")
	}
	var total, reclaimable int64
	for _, r := range records {
		total += r.Size
		if !r.InUse && !r.Shared {
			reclaimable += r.Size
		}
		if verbose {
			printRecord(tw, r)
			continue
		}
		fmt.Fprintf(tw, "%s\t%t\t%s\t%s\t%s\n", short(r.ID), !r.InUse && !r.Shared, units.HumanSize(float64(r.Size)), ago(r), oneLine(r.Description))
	}
	fmt.Fprintf(tw, "\nReclaimable:\t%s\nTotal:\t%s\n", units.HumanSize(float64(reclaimable)), units.HumanSize(float64(total)))
	return tw.Flush()
}

func printRecord(w io.Writer, r *controlapi.UsageRecord) {
	fmt.Fprintf(w, "ID:\t%s\n", r.ID)
	for _, p := range r.Parents {
		fmt.Fprintf(w, "Parent:\t%s\n", p)
	}
	fmt.Fprintf(w, "Created at:\t%s\n", r.CreatedAt.AsTime().Local())
	fmt.Fprintf(w, "Last used:\t%s\n", ago(r))
	fmt.Fprintf(w, "Usage count:\t%d\n", r.UsageCount)
	fmt.Fprintf(w, "Mutable:\t%t\nIn use:\t%t\nShared:\t%t\n", r.Mutable, r.InUse, r.Shared)
	fmt.Fprintf(w, "Size:\t%s (%d bytes)\n", units.HumanSize(float64(r.Size)), r.Size)
	fmt.Fprintf(w, "Type:\t%s\nDescription:\t%s\n\n", r.RecordType, r.Description)
}

func ago(r *controlapi.UsageRecord) string {
	if r.LastUsedAt == nil || r.LastUsedAt.AsTime().Unix() <= 0 {
		return "never"
	}
	return units.HumanDuration(time.Since(r.LastUsedAt.AsTime())) + " ago"
}

// short cuts ids to what still tells them apart.
func short(id string) string { return id[:min(len(id), 25)] }

func oneLine(s string) string {
	const most = 60
	for i, r := range s {
		if r == '\n' || i >= most {
			return s[:i] + "…"
		}
	}
	return s
}

func newPrune(g *global, s Streams) *cobra.Command {
	var o struct {
		filter           []string
		all, force       bool
		keep             time.Duration
		maxUsed, reserve string
	}
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove what no build and no image uses",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := g.slipwaydOnly("docker builder prune"); err != nil {
				return err
			}
			maxUsed, err := size(o.maxUsed)
			if err != nil {
				return usageError{err}
			}
			reserve, err := size(o.reserve)
			if err != nil {
				return usageError{err}
			}
			d, err := remote.Connect(cmd.Context(), g.addr, true, s.Err)
			if err != nil {
				return err
			}
			defer d.Close()
			stream, err := d.Control.Prune(cmd.Context(), &controlapi.PruneRequest{
				Filter: o.filter, All: o.all, KeepDuration: int64(o.keep), MaxUsedSpace: maxUsed, ReservedSpace: reserve,
			})
			if err != nil {
				return err
			}
			return printPruned(s.Out, stream)
		},
	}
	fs := cmd.Flags()
	fs.StringArrayVar(&o.filter, "filter", nil, "remove only what matches, such as type==exec.cachemount")
	fs.BoolVarP(&o.all, "all", "a", false, "also remove internal and frontend layers")
	fs.BoolVarP(&o.force, "force", "f", false, "accepted for docker's sake: nothing is asked")
	fs.DurationVar(&o.keep, "keep-duration", 0, "keep what was used within this time")
	fs.StringVar(&o.maxUsed, "max-used-space", "", "remove only until this much is used")
	fs.StringVar(&o.reserve, "reserved-space", "", "never go below this much")
	return cmd
}

func size(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := units.RAMInBytes(s)
	if err != nil {
		return 0, fmt.Errorf("%q is no size: %w", s, err)
	}
	return n, nil
}

func printPruned(w io.Writer, stream controlapi.Control_PruneClient) error {
	var total int64
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		total += r.Size
		fmt.Fprintf(w, "%s\t%s\n", short(r.ID), units.HumanSize(float64(r.Size)))
	}
	fmt.Fprintf(w, "Total reclaimed: %s\n", units.HumanSize(float64(total)))
	return nil
}
