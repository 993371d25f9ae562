// Package command is the command line: its flags, its exit codes, and calls into the packages beside it.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/slipwaybuild/slipway/cmd/internal/version"
	"github.com/spf13/cobra"
)

// Streams are the program's own.
type Streams struct {
	In       io.Reader
	Out, Err *os.File
}

// Exit codes, as docker's: 1 for a build that failed, 125 for a command line that makes no sense, 130 for Ctrl-C.
const (
	exitFailed    = 1
	exitUsage     = 125
	exitInterrupt = 130
)

// usageError is the fault of who typed the command.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// exitError ends the program with a code and without another word.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// Execute runs the command line and returns the program's exit code.
func Execute(ctx context.Context, args []string, s Streams) int {
	root := newRoot(s, args)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var code exitError
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	case ctx.Err() != nil:
		fmt.Fprintln(s.Err, "ERROR: canceled")
		return exitInterrupt
	case errors.As(err, &usage):
		fmt.Fprintf(s.Err, "slipway: %v\n", err)
		return exitUsage
	}
	printError(s.Err, err)
	return exitFailed
}

func newRoot(s Streams, args []string) *cobra.Command {
	g := &global{args: args}
	root := &cobra.Command{
		Use:           "slipway",
		Short:         "Build images and directories from Dockerfiles",
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version.String(),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q; see slipway --help", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(s.In)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	g.register(root.PersistentFlags())
	root.AddCommand(newBuild(g, s), newAttach(g, s), newLogs(g, s), newLs(g, s), newCancel(g, s), newPush(g, s), newExport(g, s), newImage(g, s), newDu(g, s), newPrune(g, s), newVersion(g, s))
	return root
}

// exactArgs is cobra.ExactArgs with an exit code of its own.
func exactArgs(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usageError{fmt.Errorf("%q requires exactly %d argument: %s; see %s --help", cmd.CommandPath(), n, what, cmd.CommandPath())}
		}
		return nil
	}
}
