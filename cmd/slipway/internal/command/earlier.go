package command

import (
	"context"
	"fmt"
	"strings"

	"github.com/slipwaybuild/slipway/cmd/slipway/internal/display"
	"github.com/slipwaybuild/slipway/cmd/slipway/internal/remote"
	"github.com/slipwaybuild/slipway/cmd/slipway/internal/request"
	"github.com/spf13/cobra"
)

// earlierOptions are the flags of commands that write outputs of an earlier build.
type earlierOptions struct {
	outputs, tags []string
	progress      string
	quiet         bool
	metadataFile  string
}

func (o *earlierOptions) register(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&o.progress, "progress", progressDefault(), "how progress is shown: auto, tty, plain, quiet or rawjson")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "show nothing but the image's id")
	fs.StringVar(&o.metadataFile, "metadata-file", "", "file to write the outcome to, as JSON")
}

func newPush(g *global, s Streams) *cobra.Command {
	var o earlierOptions
	var insecure bool
	cmd := &cobra.Command{
		Use:   "push BUILD NAME...",
		Short: "Push what a build made, without building again",
		Long: `Push what a build made under one or more names, without building again.

BUILD is the id that slipway build shows at its end, or the beginning of it. The result of a build is there until the build is
forgotten (see the history settings of the daemon) or its layers are pruned.`,
		Example: `  slipway push 7tq0 registry.example/app:1 registry.example/app:latest`,
		Args:    atLeast(2, "a build and a name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec := []string{"type=image", `"name=` + strings.Join(args[1:], ",") + `"`, "push=true", "store=false"}
			if insecure {
				spec = append(spec, "registry.insecure=true")
			}
			o.outputs = []string{strings.Join(spec, ",")}
			return earlier(cmd.Context(), g, args[0], o, "docker push", s)
		},
	}
	o.register(cmd)
	cmd.Flags().BoolVar(&insecure, "insecure", false, "allow registries without TLS, or with a certificate that nobody vouches for")
	return cmd
}

func newExport(g *global, s Streams) *cobra.Command {
	var o earlierOptions
	cmd := &cobra.Command{
		Use:   "export [flags] BUILD",
		Short: "Write what a build made, without building again",
		Long: `Write what a build made to a directory, an archive, a registry or the local image store, without building again.

BUILD is the id that slipway build shows at its end, or the beginning of it. The result of a build is there until the build is
forgotten (see the history settings of the daemon) or its layers are pruned. Outputs are those of slipway build.`,
		Example: `  slipway export 7tq0 -o out
  slipway export 7tq0 -o type=oci,dest=app.tar -t app:1`,
		Args: exactArgs(1, "the id of a build"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return earlier(cmd.Context(), g, args[0], o, "docker image save", s)
		},
	}
	cmd.Flags().StringArrayVarP(&o.outputs, "output", "o", nil, "where the outcome goes, as for slipway build; without it the local image store")
	cmd.Flags().StringArrayVarP(&o.tags, "tag", "t", nil, "name of the image, name:tag")
	o.register(cmd)
	return cmd
}

// earlier writes outputs of an earlier build. instead is the command of docker that does the like.
func earlier(ctx context.Context, g *global, id string, o earlierOptions, instead string, s Streams) error {
	if err := g.slipwaydOnly(instead); err != nil {
		return err
	}
	if o.quiet {
		o.progress = "quiet"
	}
	if err := display.Check(o.progress); err != nil {
		return usageError{err}
	}
	p, err := request.PrepareEarlier(ctx, id, request.Options{Outputs: o.outputs, Tags: o.tags}, s.Out)
	if err != nil {
		return usageError{err}
	}
	defer p.Session.Close()
	d, err := remote.Connect(ctx, g.addr, true, s.Err)
	if err != nil {
		return err
	}
	defer d.Close()
	answer, err := solve(ctx, d, p, o.progress, s.Err)
	if err != nil {
		return err
	}
	return finish(buildOptions{quiet: o.quiet, progress: o.progress, metadataFile: o.metadataFile}, p.Solve.Ref, answer, s)
}

// atLeast is cobra.MinimumNArgs with an exit code of its own.
func atLeast(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < n {
			return usageError{fmt.Errorf("%q requires at least %d arguments: %s; see %s --help", cmd.CommandPath(), n, what, cmd.CommandPath())}
		}
		return nil
	}
}
