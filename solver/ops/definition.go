package ops

import (
	"errors"
	"fmt"

	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
)

// Limits on a definition. They are far above what any frontend writes, and keep a hostile one from taking the daemon's memory: each
// op that waits for those below it costs some 30 KB while it does.
const (
	maxOps     = 20_000
	maxInputs  = 10_000
	maxActions = 10_000
	maxMounts  = 10_000
)

// ErrTooLarge is what a [DefinitionError] wraps when a definition is beyond the limits.
var ErrTooLarge = errors.New("definition is too large")

// DefinitionError says what is wrong with a definition, and with which of its ops.
type DefinitionError struct {
	// Op is the digest of the op, empty if it is about the whole.
	Op  digest.Digest
	Err error
}

func (e *DefinitionError) Error() string {
	if e.Op == "" {
		return fmt.Sprintf("invalid definition: %v", e.Err)
	}
	return fmt.Sprintf("invalid definition: op %s: %v", e.Op, e.Err)
}

// Unwrap returns the cause.
func (e *DefinitionError) Unwrap() error { return e.Err }

// MissingInputError names an input that the definition does not hold.
type MissingInputError struct{ Digest digest.Digest }

func (e *MissingInputError) Error() string { return fmt.Sprintf("missing input digest %s", e.Digest) }

// EntitlementError names an entitlement that a step needs and the build was not granted.
type EntitlementError struct{ Name string }

func (e *EntitlementError) Error() string { return e.Name + " is not allowed" }

// CapabilityError names a capability that an op needs and this engine has not.
type CapabilityError struct{ ID string }

func (e *CapabilityError) Error() string {
	return fmt.Sprintf("requested capability %q is not supported", e.ID)
}

// parsedOp is one op of a definition as it came.
type parsedOp struct {
	digest digest.Digest
	op     *pb.Op
	meta   *pb.OpMetadata // may be nil
	policy string         // names what a policy made of it; "" is nothing
}

// parsed is a definition whose bytes were understood.
type parsed struct {
	ops  map[digest.Digest]*parsedOp
	root digest.Digest
	// output is which output of root is asked for.
	output int
}

// parse decodes def. A definition without ops gives nil. What ops refer to is not looked at yet.
func parse(def *pb.Definition) (*parsed, error) {
	if def == nil || len(def.Def) == 0 {
		return nil, nil
	}
	if len(def.Def) > maxOps {
		return nil, &DefinitionError{Err: fmt.Errorf("%w: %d ops, the limit is %d", ErrTooLarge, len(def.Def), maxOps)}
	}
	p := &parsed{ops: make(map[digest.Digest]*parsedOp, len(def.Def))}
	var last *parsedOp
	for i, dt := range def.Def {
		op := &pb.Op{}
		if err := op.Unmarshal(dt); err != nil {
			return nil, &DefinitionError{Err: fmt.Errorf("decode op %d: %w", i, err)}
		}
		last = &parsedOp{digest: digest.FromBytes(dt), op: op}
		last.meta = def.Metadata[string(last.digest)]
		if err := checkInputs(op); err != nil {
			return nil, &DefinitionError{Op: last.digest, Err: err}
		}
		p.ops[last.digest] = last
	}
	// The last op only points to what is wanted. A client that asks for nothing sends it alone, without inputs.
	if len(last.op.Inputs) == 0 {
		if len(def.Def) == 1 && last.op.Op == nil {
			return nil, nil
		}
		return nil, &DefinitionError{Op: last.digest, Err: errors.New("the last op has no input")}
	}
	p.root = digest.Digest(last.op.Inputs[0].Digest)
	p.output = int(last.op.Inputs[0].Index)
	return p, nil
}

func checkInputs(op *pb.Op) error {
	if len(op.Inputs) > maxInputs {
		return fmt.Errorf("%w: %d inputs, the limit is %d", ErrTooLarge, len(op.Inputs), maxInputs)
	}
	for i, in := range op.Inputs {
		if in == nil {
			return fmt.Errorf("input %d is empty", i)
		}
		if in.Index < 0 || in.Index > maxMounts {
			return fmt.Errorf("input %d asks for output %d", i, in.Index)
		}
		if err := digest.Digest(in.Digest).Validate(); err != nil {
			return fmt.Errorf("input %d: %q: %w", i, in.Digest, err)
		}
	}
	return nil
}

// order lists the ops that root needs, inputs before those who use them. It does not recurse, so that depth costs no stack.
func (p *parsed) order() ([]*parsedOp, error) {
	const (
		open = iota + 1
		done
	)
	state := map[digest.Digest]int{}
	var out []*parsedOp
	stack := []digest.Digest{p.root}
	for len(stack) > 0 {
		d := stack[len(stack)-1]
		op := p.ops[d]
		if op == nil {
			return nil, &DefinitionError{Err: &MissingInputError{Digest: d}}
		}
		if state[d] != 0 {
			stack = stack[:len(stack)-1]
			if state[d] == open {
				state[d] = done
				out = append(out, op)
			}
			continue
		}
		state[d] = open
		for _, in := range op.op.Inputs {
			switch id := digest.Digest(in.Digest); state[id] {
			case 0:
				stack = append(stack, id)
			case open:
				// Digests make this impossible unless SHA-256 is broken; the check keeps the loop above honest.
				return nil, &DefinitionError{Op: d, Err: fmt.Errorf("input %s needs the op itself", id)}
			}
		}
	}
	return out, nil
}
