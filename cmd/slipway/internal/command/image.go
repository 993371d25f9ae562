package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/go-units"
	"github.com/slipwaybuild/slipway/cmd/slipway/internal/dockerengine"
	"github.com/slipwaybuild/slipway/cmd/slipway/internal/remote"
	"github.com/spf13/cobra"
)

// newImage makes the commands about local images: of slipwayd, or of Docker's daemon where that is meant.
func newImage(g *global, s Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "image",
		Aliases: []string{"images"},
		Short:   "List, inspect, name and remove local images",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q; see slipway image --help", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newImageList(g, s), newImageInspect(g, s), newImageTag(g, s), newImageRemove(g, s))
	return cmd
}

// withImages calls work with a connection to the daemon that has the images.
func withImages(ctx context.Context, g *global, s Streams, work func(*dockerengine.Client) error) error {
	e, err := g.docker()
	if err != nil {
		return usageError{err}
	}
	var c *dockerengine.Client
	if e != nil {
		c, err = dockerengine.Connect(ctx, e.Dial)
	} else {
		d, connectErr := remote.Connect(ctx, g.addr, true, s.Err)
		if connectErr != nil {
			return connectErr
		}
		defer d.Close()
		c, err = dockerengine.Connect(ctx, d.Dial)
	}
	if err != nil {
		return err
	}
	defer c.Close()
	return work(c)
}

func newImageList(g *global, s Streams) *cobra.Command {
	var all, quiet bool
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List local images",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withImages(cmd.Context(), g, s, func(c *dockerengine.Client) error {
				list, err := c.Images(cmd.Context(), all)
				if err != nil {
					return err
				}
				return printImages(s.Out, list, quiet)
			})
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also those that other images were made of")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "show ids only")
	return cmd
}

func printImages(w io.Writer, list []dockerengine.Image, quiet bool) error {
	tw := tabwriter.NewWriter(w, 1, 8, 3, ' ', 0)
	if !quiet {
		fmt.Fprintln(tw, "NAME\tID\tCREATED\tSIZE")
	}
	for _, i := range list {
		_, hex, _ := strings.Cut(i.ID, ":")
		id := hex[:min(len(hex), 12)]
		if quiet {
			fmt.Fprintln(tw, i.ID)
			continue
		}
		names := i.RepoTags
		if len(names) == 0 {
			names = []string{"<none>:<none>"}
		}
		created := "-"
		if i.Created > 0 {
			created = units.HumanDuration(time.Since(time.Unix(i.Created, 0))) + " ago"
		}
		for _, n := range names {
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", n, id, created, units.HumanSize(float64(i.Size)))
		}
	}
	return tw.Flush()
}

func newImageInspect(g *global, s Streams) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect IMAGE...",
		Short: "Show what is known of images, as JSON",
		Args:  atLeast(1, "an image"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withImages(cmd.Context(), g, s, func(c *dockerengine.Client) error {
				var list []json.RawMessage
				for _, name := range args {
					one, err := c.InspectImage(cmd.Context(), name)
					if err != nil {
						return fmt.Errorf("inspect %s: %w", name, err)
					}
					list = append(list, one)
				}
				b, err := json.Marshal(list)
				if err != nil {
					return err
				}
				var out bytes.Buffer
				if err := json.Indent(&out, b, "", "    "); err != nil {
					return err
				}
				fmt.Fprintln(s.Out, out.String())
				return nil
			})
		},
	}
}

func newImageTag(g *global, s Streams) *cobra.Command {
	return &cobra.Command{
		Use:   "tag IMAGE NAME...",
		Short: "Give an image further names",
		Args:  atLeast(2, "an image and a name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			type name struct{ repo, tag string }
			var names []name
			for _, text := range args[1:] {
				ref, err := reference.ParseNormalizedNamed(text)
				if err != nil {
					return usageError{fmt.Errorf("name %q: %w", text, err)}
				}
				tagged, ok := reference.TagNameOnly(ref).(reference.Tagged)
				if !ok {
					return usageError{fmt.Errorf("name %q: a digest cannot be chosen", text)}
				}
				names = append(names, name{ref.Name(), tagged.Tag()})
			}
			return withImages(cmd.Context(), g, s, func(c *dockerengine.Client) error {
				for _, n := range names {
					if err := c.TagImage(cmd.Context(), args[0], n.repo, n.tag); err != nil {
						return fmt.Errorf("tag %s: %w", args[0], err)
					}
				}
				return nil
			})
		},
	}
}

func newImageRemove(g *global, s Streams) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:     "rm IMAGE...",
		Aliases: []string{"remove"},
		Short:   "Remove names of images, and images without a name",
		Args:    atLeast(1, "an image"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withImages(cmd.Context(), g, s, func(c *dockerengine.Client) error {
				var errs []error
				for _, name := range args {
					list, err := c.RemoveImage(cmd.Context(), name, force)
					if err != nil {
						errs = append(errs, fmt.Errorf("remove %s: %w", name, err))
					}
					for _, r := range list {
						if r.Untagged != "" {
							fmt.Fprintln(s.Out, "Untagged:", r.Untagged)
						} else {
							fmt.Fprintln(s.Out, "Deleted:", r.Deleted)
						}
					}
				}
				return errors.Join(errs...)
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "also an image with several names")
	return cmd
}
