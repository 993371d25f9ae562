package request

import (
	"context"
	"io"
	"slices"
	"strconv"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/slipwaybuild/slipway/session"
)

// The daemon's frontends that build nothing, and their options: see its package daemon.
const (
	frontendResult  = "slipway.result"
	frontendCompare = "slipway.compare"
	attrKeepSteps   = "slipway.keep-steps"
)

// PrepareEarlier makes the request for outputs of a result that an earlier build left. Of the options those that say where the outcome
// goes count. Without an output it is the local image store.
func PrepareEarlier(ctx context.Context, id string, o Options, stdout io.Writer) (*Prepared, error) {
	outputs, err := parseOutputs(o, stdout)
	if err != nil {
		return nil, err
	}
	s := session.New(session.Options{})
	attrs := map[string]string{"build": id}
	if err := offer(ctx, s, Options{}, &sources{}, outputs, attrs); err != nil {
		return nil, err
	}
	solve := &controlapi.SolveRequest{Ref: session.NewID(), Session: s.ID(), Frontend: frontendResult, FrontendAttrs: attrs}
	for _, out := range outputs {
		solve.Exporters = append(solve.Exporters, &controlapi.Exporter{Type: out.Type, Attrs: out.Attrs})
	}
	return &Prepared{Solve: solve, Session: s, Outputs: outputs}, nil
}

// KeepSteps has the daemon keep what each step made, for [Compare].
func (p *Prepared) KeepSteps() { p.Solve.FrontendAttrs[attrKeepSteps] = "" }

// Compare is the question in what the results of two builds differ that kept their steps, where the second wrote the outputs.
func Compare(first, second *Prepared) *controlapi.SolveRequest {
	attrs := map[string]string{
		"first": first.Solve.Ref, "second": second.Solve.Ref,
		"rewrite-timestamp": strconv.FormatBool(second.rewritesTimes()), "image": strconv.FormatBool(second.makesImage()),
	}
	return &controlapi.SolveRequest{Ref: session.NewID(), Frontend: frontendCompare, FrontendAttrs: attrs, Internal: true}
}

// rewritesTimes tells whether an output sets later times back.
func (p *Prepared) rewritesTimes() bool {
	return slices.ContainsFunc(p.Outputs, func(out Output) bool {
		on, err := strconv.ParseBool(out.Attrs["rewrite-timestamp"])
		return err == nil && on
	})
}

func (p *Prepared) makesImage() bool { return slices.ContainsFunc(p.Outputs, Output.isImage) }
