package sourcepolicy

import (
	"errors"
	"fmt"

	"github.com/moby/buildkit/solver/pb"
	spb "github.com/moby/buildkit/sourcepolicy/pb"
)

// Errors of policies. The texts are BuildKit's, which clients know.
var (
	// ErrDenied is wrapped by the refusal of a source.
	ErrDenied = errors.New("source denied by policy")
	// ErrTooManyUpdates is wrapped by the error about rules that replace a source for ever.
	ErrTooManyUpdates = errors.New("too many operations")
	// ErrInvalid is wrapped by the error about a policy that makes no sense.
	ErrInvalid = errors.New("invalid source policy")
)

const (
	// maxUpdates is how often rules may replace one source.
	maxUpdates = 20
	// maxIdentifier is how long a source may become by them, and what they make it from, in bytes: a rule may double what it is given.
	maxIdentifier = 8 << 10
	// maxRules bounds a policy: each source is tried against each rule.
	maxRules = 10_000
	// version is the only one there is; clients may leave it out.
	version = 1
)

// Rules are policies, understood. A source is held against one policy after the other, and against the rules of each in order:
// a CONVERT that matches replaces the source, and all begins anew; of ALLOW and DENY, the last that matches counts. Each policy
// can deny. Rules do not change and may be used concurrently.
type Rules struct {
	policies [][]rule
}

type rule struct {
	action  spb.PolicyAction
	match   *selector
	updates *spb.Update
}

// Compile checks policies and makes them rules. What it is given is not kept. Errors wrap [ErrInvalid].
func Compile(policies ...*spb.Policy) (*Rules, error) {
	rules := &Rules{}
	for _, p := range policies {
		list, err := compile(p)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		if len(list) > 0 {
			rules.policies = append(rules.policies, list)
		}
	}
	return rules, nil
}

func compile(p *spb.Policy) ([]rule, error) {
	switch {
	case p == nil:
		return nil, errors.New("it is empty")
	case p.Version != 0 && p.Version != version:
		return nil, fmt.Errorf("version %d is not known", p.Version)
	case len(p.Rules) > maxRules:
		return nil, fmt.Errorf("%d rules, the limit is %d", len(p.Rules), maxRules)
	}
	list := make([]rule, len(p.Rules))
	for i, r := range p.Rules {
		if r == nil || r.Selector == nil {
			return nil, fmt.Errorf("rule %d: invalid nil selector in policy", i)
		}
		if _, ok := spb.PolicyAction_name[int32(r.Action)]; !ok {
			return nil, fmt.Errorf("rule %d: unknown type %q", i, r.Action)
		}
		if r.Action == spb.PolicyAction_CONVERT && r.Updates == nil {
			return nil, fmt.Errorf("rule %d: missing destination for convert rule", i)
		}
		if n := len(r.Updates.GetIdentifier()); n > maxIdentifier {
			return nil, fmt.Errorf("rule %d: destination of %d bytes, the limit is %d", i, n, maxIdentifier)
		}
		match, err := newSelector(r.Selector)
		if err != nil {
			return nil, fmt.Errorf("rule %d: %w", i, err)
		}
		list[i] = rule{action: r.Action, match: match, updates: r.Updates.CloneVT()}
	}
	return list, nil
}

// Empty tells whether there is nothing to hold a source against.
func (r *Rules) Empty() bool { return len(r.policies) == 0 }

// and returns these rules followed by others.
func (r *Rules) and(more *Rules) *Rules {
	return &Rules{policies: append(r.policies[:len(r.policies):len(r.policies)], more.policies...)}
}

// Apply holds a source against the rules. It changes op, to what stands in for it, and fails with an error that wraps
// [ErrDenied] if the source is not to be used.
func (r *Rules) Apply(op *pb.SourceOp) error {
	for range maxUpdates + 1 {
		updated, err := r.once(op)
		if err != nil || !updated {
			return err
		}
	}
	return fmt.Errorf("too many mutations on a single source: %w", ErrTooManyUpdates)
}

// once goes through the policies until one replaces the source.
func (r *Rules) once(op *pb.SourceOp) (updated bool, err error) {
	for _, p := range r.policies {
		denied := false
		for _, rule := range p {
			if !rule.match.matches(op) {
				continue
			}
			if rule.action == spb.PolicyAction_CONVERT {
				if updated, err := rule.update(op); updated || err != nil {
					return updated, err
				}
				continue
			}
			denied = rule.action == spb.PolicyAction_DENY
		}
		if denied {
			return false, fmt.Errorf("source %q denied by policy: %w", op.Identifier, ErrDenied)
		}
	}
	return false, nil
}

// update replaces a source, and says whether that made a difference.
func (r rule) update(op *pb.SourceOp) (bool, error) {
	updated := false
	if r.updates.Identifier != "" {
		if len(op.Identifier) > maxIdentifier {
			return false, fmt.Errorf("source of %d bytes, the limit is %d: %w", len(op.Identifier), maxIdentifier, ErrTooManyUpdates)
		}
		if id := r.match.expand(op.Identifier, r.updates.Identifier); id != "" && id != op.Identifier {
			op.Identifier, updated = id, true
		}
	}
	for k, v := range r.updates.Attrs {
		if old, ok := op.Attrs[k]; ok && old == v {
			continue
		}
		if op.Attrs == nil {
			op.Attrs = map[string]string{}
		}
		op.Attrs[k], updated = v, true
	}
	return updated, nil
}
