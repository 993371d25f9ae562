package provenance

import (
	"maps"
	"strconv"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// chains says which layers the result of each step has, as far as they are the result's own: from the last step down the root file
// systems to the base image of which base layers are known. Where the steps do not account for the layers one by one, as where layers
// are merged or one was empty, only the last step is told.
func (c *buildConfig) chains(layers []ocispecs.Descriptor, base int) map[string][][]ocispecs.Descriptor {
	n := len(c.Definition)
	if n < 2 || len(layers) == 0 || len(c.Definition[n-1].Inputs) == 0 {
		return nil
	}
	byID := make(map[string]buildStep, n)
	for _, s := range c.Definition {
		byID[s.ID] = s
	}
	// The last step only points to what is wanted.
	wanted := c.Definition[n-1].Inputs[0]
	told := map[string][][]ocispecs.Descriptor{wanted: {layers}}
	below := map[string][][]ocispecs.Descriptor{}
	at, rest := wanted, layers
	for range n {
		id, output, _ := strings.Cut(at, ":")
		step := byID[id]
		if step.Op.GetSource() != nil {
			if len(rest) == base {
				maps.Copy(told, below)
			}
			return told
		}
		number, err := strconv.Atoi(output)
		under, ok := root(step, number)
		if err != nil || !ok || len(rest) == 0 {
			return told
		}
		rest = rest[:len(rest)-1]
		if under == "" {
			if len(rest) == 0 {
				maps.Copy(told, below)
			}
			return told
		}
		below[under] = [][]ocispecs.Descriptor{rest}
		at = under
	}
	return told
}

// root is the input that an output of a step lies on as one more layer; empty for none. false for steps that work in another way.
func root(s buildStep, output int) (string, bool) {
	input := -1
	switch {
	case s.Op.GetExec() != nil:
		found := false
		for _, m := range s.Op.GetExec().Mounts {
			if m.MountType == pb.MountType_BIND && int(m.Output) == output {
				input, found = int(m.Input), true
			}
		}
		if !found {
			return "", false
		}
	case s.Op.GetFile() != nil:
		input = fileRoot(s.Op.GetFile(), output, len(s.Inputs))
	default:
		return "", false
	}
	if input < 0 {
		return "", true
	}
	if input >= len(s.Inputs) {
		return "", false
	}
	return s.Inputs[input], true
}

// fileRoot follows the actions that make an output down to the op's own input; -1 for none, one beyond the inputs if there is no sense
// in them.
func fileRoot(op *pb.FileOp, output, inputs int) int {
	at := -1
	for i, a := range op.Actions {
		if int(a.GetOutput()) == output {
			at = i
		}
	}
	for range op.Actions {
		if at < 0 || at >= len(op.Actions) {
			break
		}
		in := int(op.Actions[at].GetInput())
		if in < inputs {
			return in
		}
		at = in - inputs
	}
	return inputs
}
