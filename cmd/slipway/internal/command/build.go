package command

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/slipwaybuild/slipway/cmd/slipway/internal/detach"
	"github.com/slipwaybuild/slipway/cmd/slipway/internal/display"
	"github.com/slipwaybuild/slipway/cmd/slipway/internal/dockerhost"
	"github.com/slipwaybuild/slipway/cmd/slipway/internal/remote"
	"github.com/slipwaybuild/slipway/cmd/slipway/internal/request"
	"github.com/slipwaybuild/slipway/session/dial"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Keys of a build's answer.
const (
	keyDigest       = "containerimage.digest"
	keyConfigDigest = "containerimage.config.digest"
)

// buildOptions are the flags of build: what goes to the daemon, and what is done here with the answer.
type buildOptions struct {
	request.Options
	progress     string
	quiet        bool
	iidFile      string
	metadataFile string
	detach       bool

	checkReproducible bool
}

func newBuild(g *global, s Streams) *cobra.Command {
	var o buildOptions
	cmd := &cobra.Command{
		Use:   "build [flags] CONTEXT",
		Short: "Build an image, a directory or an archive from a Dockerfile",
		Example: `  slipway build -t app .
  slipway build -o out .
  slipway build -o type=oci,dest=app.tar --target release .
  slipway build --secret id=token,env=TOKEN --ssh default git@example.com:team/app.git`,
		Args: exactArgs(1, "the build context"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Context = args[0]
			e, err := g.docker()
			if err != nil {
				return usageError{err}
			}
			return build(cmd.Context(), g, e, o, s)
		},
	}
	registerBuild(cmd.Flags(), &o)
	return cmd
}

func build(ctx context.Context, g *global, e *dockerhost.Endpoint, o buildOptions, s Streams) error {
	if o.quiet {
		if o.progress != "auto" && o.progress != "quiet" {
			return usageError{fmt.Errorf("progress=%s and quiet cannot be used together", o.progress)}
		}
		o.progress = "quiet"
	}
	if err := display.Check(o.progress); err != nil {
		return usageError{err}
	}
	if err := removeStale(o.iidFile); err != nil {
		return err
	}
	if o.detach && o.checkReproducible {
		return usageError{errors.New("--detach and --check-reproducible cannot be used together")}
	}
	if o.checkReproducible {
		return checkReproducible(ctx, g, e, o, s)
	}
	if o.detach && e != nil {
		return usageError{fmt.Errorf("--detach asks slipwayd, and %s means Docker's daemon at %s", e.Origin, e.Host)}
	}
	if e != nil {
		return buildByDocker(ctx, e, o, s)
	}
	var out io.Writer = s.Out
	ref, background := detach.Started()
	switch {
	case o.detach && !background:
		return buildDetached(g, o, s)
	case o.detach:
		out, o.progress = nil, plainly(o.progress)
	}
	p, err := request.Prepare(ctx, o.Options, s.In, out)
	if err != nil {
		return usageError{err}
	}
	if o.detach {
		p.Solve.Ref = ref
	}
	defer p.Session.Close()
	for _, w := range p.Warnings {
		fmt.Fprintln(s.Err, "WARNING:", w)
	}
	if err := checkFiles(o, p.Outputs); err != nil {
		return usageError{err}
	}
	d, err := remote.Connect(ctx, g.addr, true, s.Err)
	if err != nil {
		return err
	}
	defer d.Close()
	p.SameHost(d.Direct)
	if o.detach {
		defer tellParent(ctx, d.Control, p.Solve.Ref)()
	}
	answer, err := solve(ctx, d, p, o.progress, s.Err)
	if err != nil {
		if status.Code(err) != codes.InvalidArgument {
			tellBuild(o, p.Solve, s) // it has a record, and if only an output failed, a result
		}
		return err
	}
	if err := p.FinishCaches(ctx, answer); err != nil {
		return err
	}
	if p.Solve.FrontendAttrs["requestid"] != "" {
		return printCall(answer, s)
	}
	tellBuild(o, p.Solve, s)
	return finish(o, p.Solve.Ref, answer, s)
}

// lastWords is how long the story of a build that was cancelled may go on.
const lastWords = 5 * time.Second

// solve runs the session, the build and its display side by side. The build's error is the one that counts.
func solve(ctx context.Context, d *remote.Daemon, p *request.Prepared, progress string, out *os.File) (map[string]string, error) {
	sessionCtx, endSession := context.WithCancel(context.WithoutCancel(ctx))
	defer endSession()
	var eg errgroup.Group
	eg.Go(func() error {
		err := p.Session.Run(sessionCtx, dial.HTTP(func(ctx context.Context) (net.Conn, error) { return d.Dial(ctx) }))
		if sessionCtx.Err() != nil {
			return nil
		}
		return err
	})
	statusCtx, endStatus := context.WithCancel(context.WithoutCancel(ctx))
	defer endStatus()
	eg.Go(func() error {
		err := display.Follow(statusCtx, d.Control, p.Solve.Ref, progress, out)
		if statusCtx.Err() != nil {
			return nil
		}
		return err
	})
	res, err := d.Control.Solve(ctx, p.Solve)
	endSession()
	switch {
	case status.Code(err) == codes.InvalidArgument:
		// Refused before it began: there is no story to follow.
		endStatus()
	case ctx.Err() != nil:
		// The daemon tells how the build ends, if it can be reached.
		defer time.AfterFunc(lastWords, endStatus).Stop()
	}
	if waitErr := eg.Wait(); err == nil && waitErr != nil {
		err = waitErr
	}
	if err != nil {
		return nil, err
	}
	return res.ExporterResponse, nil
}

// checkFiles refuses files that could never be written.
func checkFiles(o buildOptions, outputs []request.Output) error {
	if o.iidFile == "" {
		return nil
	}
	for _, out := range outputs {
		if out.Type == "local" || out.Type == "tar" {
			return errors.New("local and tar exporters are incompatible with image ID file")
		}
	}
	return nil
}

func removeStale(path string) error {
	if path == "" {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove image ID file: %w", err)
	}
	return nil
}

// finish writes what was asked for about the outcome.
func finish(o buildOptions, ref string, answer map[string]string, s Streams) error {
	id := answer[keyConfigDigest]
	if id == "" {
		id = answer[keyDigest]
	}
	if o.iidFile != "" {
		if id == "" {
			return fmt.Errorf("cannot write %s because server did not provide an image ID", o.iidFile)
		}
		if err := os.WriteFile(o.iidFile, []byte(id), 0o666); err != nil {
			return fmt.Errorf("write image ID file: %w", err)
		}
	}
	if o.metadataFile != "" {
		if err := writeMetadata(o.metadataFile, ref, answer); err != nil {
			return err
		}
	}
	if o.quiet && id != "" {
		fmt.Fprintln(s.Out, id)
	}
	return nil
}

// tellBuild names the build for what can be done with it later.
func tellBuild(o buildOptions, r *controlapi.SolveRequest, s Streams) {
	if o.progress != "quiet" && o.progress != "rawjson" && r.FrontendAttrs["requestid"] == "" {
		fmt.Fprintf(s.Err, "build %s\n", r.Ref)
	}
}

// writeMetadata writes the answer as JSON; values that are themselves base64 of JSON are written as such.
func writeMetadata(path, ref string, answer map[string]string) error {
	md := map[string]any{"slipway.build.ref": ref}
	for k, v := range answer {
		md[k] = v
		if b, err := base64.StdEncoding.DecodeString(v); err == nil {
			var inner map[string]any
			if json.Unmarshal(b, &inner) == nil {
				md[k] = inner
			}
		}
	}
	b, err := json.MarshalIndent(md, "", "  ")
	if err != nil {
		return fmt.Errorf("write metadata file: %w", err)
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o666); err != nil {
		return fmt.Errorf("write metadata file: %w", err)
	}
	return nil
}

// printCall shows the answer to a question that is no build. Checks that found something are a failure.
func printCall(answer map[string]string, s Streams) error {
	text := answer["result.txt"]
	if text == "" {
		text = answer["result.json"]
	}
	fmt.Fprintln(s.Out, strings.TrimRight(text, "\n"))
	if code, err := strconv.Atoi(answer["result.statuscode"]); err == nil && code != 0 {
		return exitError(code)
	}
	return nil
}
