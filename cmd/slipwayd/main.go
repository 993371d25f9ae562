// Command slipwayd is the build daemon.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/slipwaybuild/slipway/cmd/internal/version"
	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends a daemon that is slow to end.
	context.AfterFunc(ctx, stop)
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "slipwayd:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "slipwayd",
		Short: "Build daemon: solves Dockerfiles and build graphs for slipway, docker and BuildKit's clients",
		Long: `Build daemon: solves Dockerfiles and build graphs for slipway, docker and BuildKit's clients.

Flags and the keys of the configuration file are buildkitd's; a flag wins over the file. SIGTERM and SIGINT end the daemon: it
takes no more builds, cancels those that run and closes what it keeps; a second one ends it at once. SIGHUP has it read the log
level and certificates again.`,
		Args:          cobra.NoArgs,
		Version:       version.String(),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return run(cmd.Context(), &f)
		},
	}
	f.register(cmd.Flags())
	return cmd
}
