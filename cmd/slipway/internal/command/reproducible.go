package command

import (
	"context"
	"errors"
	"fmt"

	"github.com/slipwaybuild/slipway/cmd/slipway/internal/dockerhost"
	"github.com/slipwaybuild/slipway/cmd/slipway/internal/remote"
	"github.com/slipwaybuild/slipway/cmd/slipway/internal/request"
)

// checkReproducible builds twice without cache and asks the daemon in what the results differ. The second build writes the outputs.
func checkReproducible(ctx context.Context, g *global, e *dockerhost.Endpoint, o buildOptions, s Streams) error {
	switch {
	case e != nil:
		return usageError{errors.New("check-reproducible asks slipwayd, not Docker's daemon: say --addr")}
	case o.Context == "-" || o.File == "-":
		return usageError{errors.New("check-reproducible builds twice, and standard input can be read once only")}
	case o.Check || o.Call != "" && o.Call != "build":
		return usageError{errors.New("check-reproducible builds, and cannot be used together with check or call")}
	}
	o.NoCache, o.NoCacheFilter, o.CacheFrom = true, nil, nil
	first := o
	first.Outputs, first.CacheTo, first.Push, first.Tags, first.Annotations = []string{"type=cacheonly"}, nil, false, nil, nil
	first.iidFile, first.metadataFile = "", ""
	d, err := remote.Connect(ctx, g.addr, true, s.Err)
	if err != nil {
		return err
	}
	defer d.Close()
	one, err := runTwin(ctx, d, first, s)
	if err != nil {
		return err
	}
	two, err := runTwin(ctx, d, o, s)
	if err != nil {
		return err
	}
	res, err := d.Control.Solve(ctx, request.Compare(one, two))
	if err != nil {
		return fmt.Errorf("compare the two builds: %w", err)
	}
	return printCall(res.ExporterResponse, s)
}

// runTwin runs one of the builds that are compared.
func runTwin(ctx context.Context, d *remote.Daemon, o buildOptions, s Streams) (*request.Prepared, error) {
	p, err := request.Prepare(ctx, o.Options, s.In, s.Out)
	if err != nil {
		return nil, usageError{err}
	}
	defer p.Session.Close()
	if err := checkFiles(o, p.Outputs); err != nil {
		return nil, usageError{err}
	}
	p.KeepSteps()
	answer, err := solve(ctx, d, p, o.progress, s.Err)
	if err != nil {
		return nil, err
	}
	if err := p.FinishCaches(ctx, answer); err != nil {
		return nil, err
	}
	tellBuild(o, p.Solve, s)
	return p, finish(o, p.Solve.Ref, answer, s)
}
