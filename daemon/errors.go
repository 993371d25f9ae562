package daemon

import (
	"errors"

	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/executor"
	"github.com/slipwaybuild/slipway/solver/guard"
	"github.com/slipwaybuild/slipway/solver/ops"
)

// failure adds to an error of the solver what clients unwrap: the step, how its command ended, the lines it was written in, and
// the names of what it left.
func (r *reference) failure(err error) error {
	var ve *solver.VertexError
	if !errors.As(err, &ve) || ve.Vertex == nil {
		return err
	}
	names, subject := r.build.leftBy(err)
	var exit *executor.ExitError
	if errors.As(err, &exit) {
		err = &gwpb.ExitError{ExitCode: uint32(exit.Code), Err: err}
	}
	err = errdefs.WrapVertex(err, ve.Vertex.ID)
	if op, about := opOf(r.def, ve.Vertex.ID); op != nil {
		m := r.build.values.Matcher()
		maskMessage(m, op)
		about = maskStrings(m, about)
		err = errdefs.WithSolveError(errdefs.WithOp(err, op, about), subject, names.inputs, names.results)
	}
	return at(err, r.locations(ve), r.build.values.Matcher())
}

// locations are the lines of a step. What makes the files that others use may have none of its own: of a secret in it those lines tell
// that use it.
func (r *reference) locations(ve *solver.VertexError) []ops.Location {
	list := r.graph.Locations(ve.Vertex.ID)
	if len(list) > 0 || !errors.As(ve.Err, new(*ops.LeakError)) {
		return list
	}
	return r.graph.UserLocations(ve.Vertex)
}

// leftBy names what a failed step left, and says which part of its op failed.
func (b *build) leftBy(err error) (names left, subject errdefs.IsSolve_Subject) {
	var step *ops.StepError
	if errors.As(err, &step) {
		names = b.leftovers.keep(step)
	}
	var action *ops.ActionError
	if errors.As(err, &action) {
		subject = &errdefs.Solve_File{File: &errdefs.FileAction{Index: int64(action.Index)}}
	}
	var read *ops.ReadError
	if errors.As(err, &read) {
		subject = &errdefs.Solve_Cache{Cache: &errdefs.ContentCache{Index: int64(read.Input)}}
	}
	return names, subject
}

// opOf finds a step in the definition it came from, and what its author says of it.
func opOf(def *pb.Definition, id digest.Digest) (*pb.Op, map[string]string) {
	for _, dt := range def.GetDef() {
		if digest.FromBytes(dt) != id {
			continue
		}
		op := &pb.Op{}
		if op.Unmarshal(dt) != nil {
			return nil, nil // the loader has refused it
		}
		return op, def.Metadata[string(id)].GetDescription()
	}
	return nil, nil
}

func at(err error, locations []ops.Location, m *guard.Matcher) error {
	for _, l := range locations {
		info := l.Info.CloneVT()
		maskMessage(m, info)
		err = errdefs.WithSource(err, &errdefs.Source{Info: info, Ranges: l.Ranges})
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
