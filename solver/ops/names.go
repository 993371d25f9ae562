package ops

import (
	"fmt"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"github.com/slipwaybuild/slipway/solver"
)

// maxName bounds a name made up from others: merges of merges would otherwise double in length at every step.
const maxName = 512

// nameOf is what people read: the frontend's own name for a step, otherwise what it does.
func nameOf(op *parsedOp, inputs []solver.Edge) string {
	if name, ok := op.meta.GetDescription()["llb.customname"]; ok {
		return name
	}
	name := defaultName(op.op, inputs)
	if len(name) > maxName {
		name = strings.ToValidUTF8(name[:maxName], "") + "…"
	}
	return name
}

func defaultName(op *pb.Op, inputs []solver.Edge) string {
	input := func(i int64) string {
		if i < 0 || i >= int64(len(inputs)) {
			return "scratch"
		}
		return inputs[i].Vertex.Name
	}
	switch o := op.Op.(type) {
	case *pb.Op_Source:
		return o.Source.Identifier
	case *pb.Op_Exec:
		return strings.Join(o.Exec.Meta.Args, " ")
	case *pb.Op_File:
		return fileName(o.File.Actions)
	case *pb.Op_Build:
		return "build"
	case *pb.Op_Merge:
		var names []string
		for _, in := range o.Merge.Inputs {
			names = append(names, input(in.Input))
		}
		return fmt.Sprintf("merge (%s)", strings.Join(names, ", "))
	case *pb.Op_Diff:
		return fmt.Sprintf("diff (%s) -> (%s)", input(o.Diff.Lower.Input), input(o.Diff.Upper.Input))
	case *pb.Op_Passthrough:
		return "passthrough " + o.Passthrough.Id
	}
	return "unknown"
}

func fileName(actions []*pb.FileAction) string {
	var names []string
	for _, action := range actions {
		switch a := action.Action.(type) {
		case *pb.FileAction_Mkdir:
			names = append(names, "mkdir "+a.Mkdir.Path)
		case *pb.FileAction_Mkfile:
			names = append(names, "mkfile "+a.Mkfile.Path)
		case *pb.FileAction_Symlink:
			names = append(names, fmt.Sprintf("symlink %s -> %s", a.Symlink.Newpath, a.Symlink.Oldpath))
		case *pb.FileAction_Rm:
			names = append(names, "rm "+a.Rm.Path)
		case *pb.FileAction_Copy:
			names = append(names, fmt.Sprintf("copy %s %s", a.Copy.Src, a.Copy.Dest))
		}
	}
	return strings.Join(names, ", ")
}
