package daemon

import (
	"errors"

	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/executor"
	"github.com/slipwaybuild/slipway/solver/ops"
)

// failure adds to an error of the solver what clients unwrap: the step, how its command ended, and the lines it was written in.
func (r *reference) failure(err error) error {
	var ve *solver.VertexError
	if !errors.As(err, &ve) || ve.Vertex == nil {
		return err
	}
	var exit *executor.ExitError
	if errors.As(err, &exit) {
		err = &gwpb.ExitError{ExitCode: uint32(exit.Code), Err: err}
	}
	err = errdefs.WrapVertex(err, ve.Vertex.ID)
	return at(err, r.graph.Locations(ve.Vertex.ID))
}

func at(err error, locations []ops.Location) error {
	for _, l := range locations {
		err = errdefs.WithSource(err, &errdefs.Source{Info: l.Info, Ranges: l.Ranges})
	}
	return err
}

// withSource adds the lines of a step to an error found while loading its definition.
func withSource(err error, def *pb.Definition, step digest.Digest) error {
	var de *ops.DefinitionError
	if errors.As(err, &de) && step == "" {
		step = de.Op
	}
	var pe *ops.PolicyError
	if errors.As(err, &pe) && step == "" {
		step = pe.Op
	}
	locations := def.GetSource().GetLocations()[string(step)]
	for _, l := range locations.GetLocations() {
		if infos := def.Source.Infos; l != nil && int(l.SourceIndex) < len(infos) && l.SourceIndex >= 0 {
			err = errdefs.WithSource(err, &errdefs.Source{Info: infos[l.SourceIndex], Ranges: l.Ranges})
		}
	}
	return err
}
