package sourcepolicy

import (
	"errors"
	"fmt"
	"regexp"

	"github.com/moby/buildkit/solver/pb"
	spb "github.com/moby/buildkit/sourcepolicy/pb"
	"github.com/moby/buildkit/util/wildcard"
)

// selector says which sources a rule is about.
type selector struct {
	identifier  string
	kind        spb.MatchType
	pattern     *regexp.Regexp // of REGEX
	wildcard    *wildcard.Wildcard
	constraints []constraint
}

// constraint is a condition on an attribute; one that is not there counts as empty.
type constraint struct {
	key, value string
	condition  spb.AttrMatch
	pattern    *regexp.Regexp // of MATCHES
}

func newSelector(in *spb.Selector) (*selector, error) {
	s := &selector{identifier: in.Identifier, kind: in.MatchType}
	var err error
	switch in.MatchType {
	case spb.MatchType_EXACT:
	case spb.MatchType_REGEX:
		if s.pattern, err = regexp.Compile(in.Identifier); err != nil {
			return nil, err
		}
	case spb.MatchType_WILDCARD:
		if s.wildcard, err = wildcard.New(in.Identifier); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("unknown match type %d", in.MatchType)
	}
	for _, c := range in.Constraints {
		made, err := newConstraint(c)
		if err != nil {
			return nil, err
		}
		s.constraints = append(s.constraints, made)
	}
	return s, nil
}

func newConstraint(in *spb.AttrConstraint) (c constraint, err error) {
	if in == nil {
		return c, errors.New("a constraint is empty")
	}
	c = constraint{key: in.Key, value: in.Value, condition: in.Condition}
	switch in.Condition {
	case spb.AttrMatch_EQUAL, spb.AttrMatch_NOTEQUAL:
	case spb.AttrMatch_MATCHES:
		if c.pattern, err = regexp.Compile(in.Value); err != nil {
			return c, fmt.Errorf("constraint on %q: %w", in.Key, err)
		}
	default:
		return c, fmt.Errorf("constraint on %q: unknown condition %d", in.Key, in.Condition)
	}
	return c, nil
}

func (c constraint) holds(attrs map[string]string) bool {
	v := attrs[c.key]
	switch c.condition {
	case spb.AttrMatch_EQUAL:
		return v == c.value
	case spb.AttrMatch_NOTEQUAL:
		return v != c.value
	default:
		return c.pattern.MatchString(v)
	}
}

func (s *selector) matches(op *pb.SourceOp) bool {
	for _, c := range s.constraints {
		if !c.holds(op.Attrs) {
			return false
		}
	}
	if s.identifier == op.Identifier {
		return true
	}
	switch s.kind {
	case spb.MatchType_REGEX:
		return s.pattern.MatchString(op.Identifier)
	case spb.MatchType_WILDCARD:
		return s.wildcard.Match(op.Identifier) != nil
	default:
		return false
	}
}

// expand puts what the selector captured of an identifier that it matches into a template: $1 and ${1} are the first "*" of a
// wildcard, or the first group of a regular expression, of which every match is replaced.
func (s *selector) expand(identifier, template string) string {
	switch s.kind {
	case spb.MatchType_REGEX:
		return s.pattern.ReplaceAllString(identifier, template)
	case spb.MatchType_WILDCARD:
		m := s.wildcard.Match(identifier)
		if m == nil {
			return identifier
		}
		id, err := m.Format(template)
		if err != nil {
			return identifier
		}
		return id
	default:
		return template
	}
}
