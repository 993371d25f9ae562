// Command slipway builds images and directories from Dockerfiles with the slipwayd daemon, starting one if none runs.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/slipwaybuild/slipway/cmd/slipway/internal/command"
)

func main() {
	// The first signal cancels the build; the second one, with the handler gone, ends the program.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(command.Execute(ctx, os.Args[1:], command.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
