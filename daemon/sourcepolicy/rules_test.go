package sourcepolicy

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/moby/buildkit/solver/pb"
	spb "github.com/moby/buildkit/sourcepolicy/pb"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func policy(rules ...*spb.Rule) *spb.Policy { return &spb.Policy{Version: 1, Rules: rules} }

func rule1(a spb.PolicyAction, kind spb.MatchType, id string, constraints ...*spb.AttrConstraint) *spb.Rule {
	return &spb.Rule{Action: a, Selector: &spb.Selector{Identifier: id, MatchType: kind, Constraints: constraints}}
}

func allow(id string) *spb.Rule { return rule1(spb.PolicyAction_ALLOW, spb.MatchType_WILDCARD, id) }
func deny(id string) *spb.Rule  { return rule1(spb.PolicyAction_DENY, spb.MatchType_WILDCARD, id) }

func convert(kind spb.MatchType, id, to string, attrs ...string) *spb.Rule {
	r := rule1(spb.PolicyAction_CONVERT, kind, id)
	r.Updates = &spb.Update{Identifier: to}
	for i := 0; i < len(attrs); i += 2 {
		if r.Updates.Attrs == nil {
			r.Updates.Attrs = map[string]string{}
		}
		r.Updates.Attrs[attrs[i]] = attrs[i+1]
	}
	return r
}

const (
	wild  = spb.MatchType_WILDCARD
	exact = spb.MatchType_EXACT
	regex = spb.MatchType_REGEX
)

func TestRules(t *testing.T) {
	t.Parallel()
	busybox := "docker-image://docker.io/library/busybox:1.34"
	is := func(cond spb.AttrMatch, k, v string) *spb.AttrConstraint {
		return &spb.AttrConstraint{Key: k, Value: v, Condition: cond}
	}
	denied := `source "` + busybox + `" denied by policy: source denied by policy`
	for name, c := range map[string]struct {
		policies  []*spb.Policy
		attrs     map[string]string
		want, err string
		wantAttrs map[string]string
	}{
		"none":                {want: busybox},
		"no rule about it":    {policies: []*spb.Policy{policy(deny("docker-image://alpine*"))}, want: busybox},
		"denied":              {policies: []*spb.Policy{policy(deny("docker-image://*"))}, err: denied},
		"the last one denies": {policies: []*spb.Policy{policy(allow("docker-image://*"), deny("*busybox*"))}, err: denied},
		"the last one allows": {policies: []*spb.Policy{policy(deny("*"), allow("*busybox*"))}, want: busybox},
		"either policy denies": {
			policies: []*spb.Policy{policy(deny("*")), policy(allow("*"))}, err: denied,
		},
		"exact is no wildcard":    {policies: []*spb.Policy{policy(rule1(spb.PolicyAction_DENY, exact, "docker-image://*"))}, want: busybox},
		"exact":                   {policies: []*spb.Policy{policy(rule1(spb.PolicyAction_DENY, exact, busybox))}, err: denied},
		"regex":                   {policies: []*spb.Policy{policy(rule1(spb.PolicyAction_DENY, regex, `^docker-image://.*:1\.\d+$`))}, err: denied},
		"constraint holds":        {policies: []*spb.Policy{policy(rule1(spb.PolicyAction_DENY, wild, "*", is(spb.AttrMatch_EQUAL, "k", "v")))}, attrs: map[string]string{"k": "v"}, err: denied},
		"constraint does not":     {policies: []*spb.Policy{policy(rule1(spb.PolicyAction_DENY, wild, busybox, is(spb.AttrMatch_EQUAL, "k", "v")))}, want: busybox},
		"constraint not equal":    {policies: []*spb.Policy{policy(rule1(spb.PolicyAction_DENY, wild, "*", is(spb.AttrMatch_NOTEQUAL, "k", "v")))}, err: denied},
		"constraint that matches": {policies: []*spb.Policy{policy(rule1(spb.PolicyAction_DENY, wild, "*", is(spb.AttrMatch_MATCHES, "k", "^v+$")))}, attrs: map[string]string{"k": "vv"}, err: denied},
		"all constraints count":   {policies: []*spb.Policy{policy(rule1(spb.PolicyAction_DENY, wild, "*", is(spb.AttrMatch_EQUAL, "k", "v"), is(spb.AttrMatch_EQUAL, "l", "w")))}, attrs: map[string]string{"k": "v"}, want: busybox},
		"converted": {
			policies: []*spb.Policy{policy(convert(wild, "docker-image://docker.io/library/busybox:*", "docker-image://example.com/bb:${1}-x"))},
			want:     "docker-image://example.com/bb:1.34-x",
		},
		"converted by groups": {
			policies: []*spb.Policy{policy(convert(regex, `^docker-image://docker\.io/(.*):(.*)$`, "docker-image://mirror/$1:$2"))},
			want:     "docker-image://mirror/library/busybox:1.34",
		},
		"exact is no template": {policies: []*spb.Policy{policy(convert(exact, busybox, "docker-image://x/$1"))}, want: "docker-image://x/$1"},
		"attributes alone": {
			policies: []*spb.Policy{policy(convert(wild, "*busybox*", "", "http.checksum", "sha256:x"))},
			attrs:    map[string]string{"a": "b"}, want: busybox, wantAttrs: map[string]string{"a": "b", "http.checksum": "sha256:x"},
		},
		"an empty attribute is set": {policies: []*spb.Policy{policy(convert(exact, busybox, "", "k", ""))}, want: busybox, wantAttrs: map[string]string{"k": ""}},
		"what is converted to is denied": {
			policies: []*spb.Policy{policy(convert(exact, busybox, "docker-image://evil"), deny("docker-image://evil"))},
			err:      `source "docker-image://evil" denied by policy: source denied by policy`,
		},
		"what was converted may have been denied": {policies: []*spb.Policy{policy(deny(busybox), convert(exact, busybox, "docker-image://good"))}, want: "docker-image://good"},
		"by the next policy":                      {policies: []*spb.Policy{policy(convert(exact, busybox, "docker-image://evil")), policy(deny("*evil"))}, err: `source "docker-image://evil" denied by policy: source denied by policy`},
		"in a ring": {
			policies: []*spb.Policy{policy(convert(exact, busybox, "docker-image://b"), convert(exact, "docker-image://b", busybox))},
			err:      "too many mutations on a single source: too many operations",
		},
		"for ever": {policies: []*spb.Policy{policy(convert(wild, "*", "${1}x"))}, err: "too many mutations on a single source: too many operations"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rules, err := Compile(c.policies...)
			if err != nil {
				t.Fatal(err)
			}
			op := &pb.SourceOp{Identifier: busybox, Attrs: maps.Clone(c.attrs)}
			err = rules.Apply(op)
			switch {
			case c.err != "" && (err == nil || err.Error() != c.err):
				t.Errorf("got %v, want %s", err, c.err)
			case c.err == "" && (err != nil || op.Identifier != c.want):
				t.Errorf("got %s, %v; want %s", op.Identifier, err, c.want)
			case c.wantAttrs != nil && !maps.Equal(op.Attrs, c.wantAttrs):
				t.Errorf("attributes are %v, want %v", op.Attrs, c.wantAttrs)
			}
			if c.err != "" && !errors.Is(err, ErrDenied) && !errors.Is(err, ErrTooManyUpdates) {
				t.Errorf("%v is of no kind", err)
			}
		})
	}
}

// A rule that doubles what it is given must not fill the memory.
func TestUpdatesThatGrow(t *testing.T) {
	t.Parallel()
	rules, err := Compile(policy(convert(wild, "*", "${1}${1}")))
	if err != nil {
		t.Fatal(err)
	}
	op := &pb.SourceOp{Identifier: "docker-image://docker.io/library/busybox:latest"}
	if err := rules.Apply(op); !errors.Is(err, ErrTooManyUpdates) || !strings.Contains(err.Error(), "the limit is") {
		t.Errorf("got %v", err)
	}
	if len(op.Identifier) > 2*maxIdentifier {
		t.Errorf("it grew to %d bytes", len(op.Identifier))
	}
}

func TestPoliciesThatMakeNoSense(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		policy *spb.Policy
		want   string
	}{
		"none":              {nil, "empty"},
		"version":           {&spb.Policy{Version: 2}, "version 2"},
		"no rule":           {policy(nil), "rule 0"},
		"no selector":       {policy(allow("*"), &spb.Rule{}), "rule 1: invalid nil selector"},
		"no constraint":     {policy(rule1(0, wild, "*", nil)), "constraint is empty"},
		"unknown condition": {policy(rule1(0, wild, "*", &spb.AttrConstraint{Key: "k", Condition: 9})), `"k": unknown condition 9`},
		"bad condition":     {policy(rule1(0, wild, "*", &spb.AttrConstraint{Key: "k", Value: "(", Condition: spb.AttrMatch_MATCHES})), `constraint on "k"`},
		"unknown kind":      {policy(rule1(0, 9, "*")), "unknown match type 9"},
		"unknown action":    {policy(rule1(9, wild, "*")), "unknown type"},
		"bad expression":    {policy(rule1(0, regex, "(")), "missing closing"},
		"bad wildcard":      {policy(rule1(0, wild, "**")), "wildcard"},
		"no destination":    {policy(rule1(spb.PolicyAction_CONVERT, wild, "*")), "missing destination"},
		"long destination":  {policy(convert(wild, "*", strings.Repeat("x", maxIdentifier+1))), "the limit is"},
		"too many rules":    {&spb.Policy{Rules: make([]*spb.Rule, maxRules+1)}, "the limit is"},
	} {
		_, err := Compile(c.policy)
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// A rule must not be passed by with another spelling.
func TestSpellings(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"docker-image://alpine":                           "docker-image://docker.io/library/alpine:latest",
		"docker-image://docker.io/library/alpine:3":       "docker-image://docker.io/library/alpine:3",
		"docker-image://index.docker.io/library/alpine:3": "docker-image://docker.io/library/alpine:3",
		"docker-image://Not A Reference":                  "docker-image://Not A Reference",
		"https://Example.COM/A?B#C":                       "https://example.com/A?B#C",
		"http://U:P@HOST":                                 "http://U:P@host",
		"git://GitHub.com//a/b.git#main:sub":              "git://github.com/a/b.git#main:sub",
		"git://github.com/a/b.git":                        "git://github.com/a/b.git",
		"git://git@github.com:a/b.git#v1":                 "git://github.com/a/b.git#v1",
		"local://Context":                                 "local://Context",
		"nothing":                                         "nothing",
	} {
		if got := canonical(in); got != want {
			t.Errorf("canonical(%q) = %q, want %q", in, got, want)
		}
		if again := canonical(want); again != want {
			t.Errorf("canonical(%q) = %q", want, again)
		}
	}
}

func FuzzRules(f *testing.F) {
	for _, p := range []*spb.Policy{
		policy(deny("docker-image://*"), allow("*")),
		policy(convert(regex, "(a)|b", "$1c", "k", "v"), rule1(spb.PolicyAction_DENY, exact, "c", &spb.AttrConstraint{Key: "k", Value: "v", Condition: spb.AttrMatch_MATCHES})),
		policy(convert(wild, "*://*", "${2}://${1}")),
		policy(convert(wild, "*://*", "${0}://${1}")),
	} {
		dt, err := proto.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(dt, "docker-image://a", "v")
	}
	f.Fuzz(func(t *testing.T, dt []byte, id, attr string) {
		var p spb.Policy
		if proto.Unmarshal(dt, &p) != nil {
			return
		}
		g, err := New(Options{Policies: []*spb.Policy{&p}})
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%v is of no kind", err)
			}
			return
		}
		op := &pb.SourceOp{Identifier: id, Attrs: map[string]string{"k": attr}}
		got, err := g.Check(t.Context(), op, nil)
		if op.Identifier != id || op.Attrs["k"] != attr {
			t.Error("the op that was asked about has changed")
		}
		if (got == nil) == (err == nil) || err != nil && !errors.Is(err, ErrDenied) && !errors.Is(err, ErrTooManyUpdates) {
			t.Errorf("got %v and %v", got, err)
		}
		again, errAgain := g.Check(t.Context(), op, nil)
		if (err == nil) != (errAgain == nil) || err == nil && again.Identifier != got.Identifier {
			t.Errorf("two answers: %v, %v and %v, %v", got, err, again, errAgain)
		}
	})
}
