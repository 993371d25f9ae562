package sourcepolicy

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	spb "github.com/moby/buildkit/sourcepolicy/pb"
	"github.com/moby/buildkit/sourcepolicy/policysession"
)

type (
	request  = policysession.CheckPolicyRequest
	response = policysession.CheckPolicyResponse
)

// script answers one question after the other, the last for ever, and keeps what it was asked.
type script struct {
	answers []func(*request) *response
	asked   []*request
}

func (s *script) verify(_ context.Context, r *request) (*response, error) {
	s.asked = append(s.asked, r)
	a := s.answers[min(len(s.asked), len(s.answers))-1](r)
	if a == nil {
		return nil, errors.New("the client has gone")
	}
	return a, nil
}

func decision(d *policysession.DecisionResponse) func(*request) *response {
	return func(*request) *response {
		return &response{Result: &policysession.CheckPolicyResponse_Decision{Decision: d}}
	}
}

func action(a spb.PolicyAction, update *pb.SourceOp, messages ...string) func(*request) *response {
	d := &policysession.DecisionResponse{Action: a, Update: update}
	for _, m := range messages {
		d.DenyMessages = append(d.DenyMessages, &policysession.DenyMessage{Message: m})
	}
	return decision(d)
}

// wants asks for more, of another source if id is not empty.
func wants(id string) func(*request) *response {
	return func(r *request) *response {
		src := r.Source.Source.CloneVT()
		if id != "" {
			src.Identifier = id
		}
		return &response{Result: &policysession.CheckPolicyResponse_Request{
			Request: &gwpb.ResolveSourceMetaRequest{Source: src, Image: &gwpb.ResolveSourceImageRequest{NoConfig: true}},
		}}
	}
}

func resolved(_ context.Context, r *gwpb.ResolveSourceMetaRequest) (*gwpb.ResolveSourceMetaResponse, error) {
	return &gwpb.ResolveSourceMetaResponse{Source: r.Source, Image: &gwpb.ResolveSourceImageResponse{Digest: "sha256:1"}}, nil
}

func TestTheClientDecides(t *testing.T) {
	t.Parallel()
	const alpine = "docker-image://docker.io/library/alpine:3"
	other := &pb.SourceOp{Identifier: "docker-image://docker.io/library/other:1", Attrs: map[string]string{"k": "v"}}
	for name, c := range map[string]struct {
		answers   []func(*request) *response
		policies  []*spb.Policy
		want, err string
		asked     int
	}{
		"allowed":           {answers: []func(*request) *response{action(spb.PolicyAction_ALLOW, nil)}, want: alpine, asked: 1},
		"denied":            {answers: []func(*request) *response{action(spb.PolicyAction_DENY, nil, "no", "never")}, err: `source "` + alpine + `" not allowed by policy: action DENY`, asked: 1},
		"unknown action":    {answers: []func(*request) *response{action(9, nil)}, err: "not allowed by policy: action 9", asked: 1},
		"no decision":       {answers: []func(*request) *response{decision(nil)}, err: "no decision in policy response", asked: 1},
		"nothing at all":    {answers: []func(*request) *response{func(*request) *response { return &response{} }}, err: "no decision in policy response", asked: 1},
		"client gone":       {answers: []func(*request) *response{func(*request) *response { return nil }}, err: "the client has gone", asked: 1},
		"replaced":          {answers: []func(*request) *response{action(spb.PolicyAction_CONVERT, other), action(spb.PolicyAction_ALLOW, nil)}, want: other.Identifier, asked: 2},
		"replaced by none":  {answers: []func(*request) *response{action(spb.PolicyAction_CONVERT, nil)}, err: "convert action requires updated source", asked: 1},
		"replaced for ever": {answers: []func(*request) *response{action(spb.PolicyAction_CONVERT, other)}, err: "too many policy requests", asked: maxAsked},
		"wants more":        {answers: []func(*request) *response{wants(""), action(spb.PolicyAction_ALLOW, nil)}, want: alpine, asked: 2},
		"wants ever more":   {answers: []func(*request) *response{wants("")}, err: "too many policy requests", asked: maxAsked},
		"wants another":     {answers: []func(*request) *response{wants("docker-image://x")}, err: "different source identifier", asked: 1},
		"rules go first":    {answers: []func(*request) *response{action(spb.PolicyAction_ALLOW, nil)}, policies: []*spb.Policy{policy(deny("*"))}, err: "denied by policy"},
		"and judge what the client gives": {
			answers: []func(*request) *response{action(spb.PolicyAction_CONVERT, other)}, policies: []*spb.Policy{policy(deny("*other*"))},
			err: `source "` + other.Identifier + `" denied by policy: source denied by policy`, asked: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &script{answers: c.answers}
			g, err := New(Options{Policies: c.policies, Verify: s.verify, Resolve: resolved})
			if err != nil {
				t.Fatal(err)
			}
			op, err := g.Check(t.Context(), &pb.SourceOp{Identifier: alpine}, &pb.Platform{OS: "linux"})
			if len(s.asked) != c.asked {
				t.Errorf("asked %d times, want %d", len(s.asked), c.asked)
			}
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v, want %s", err, c.err)
				}
				return
			}
			if err != nil || op.Identifier != c.want {
				t.Fatalf("got %v, %v; want %s", op, err, c.want)
			}
			if s.asked[0].Platform.OS != "linux" {
				t.Error("the client was not told the platform")
			}
			if _, err := g.Check(t.Context(), &pb.SourceOp{Identifier: alpine}, &pb.Platform{OS: "linux"}); err != nil || len(s.asked) != c.asked {
				t.Errorf("asked again: %d times, %v", len(s.asked), err)
			}
		})
	}
}

func TestWhatTheClientLearns(t *testing.T) {
	t.Parallel()
	s := &script{answers: []func(*request) *response{wants(""), action(spb.PolicyAction_DENY, nil, "not signed")}}
	g, err := New(Options{Verify: s.verify, Resolve: resolved})
	if err != nil {
		t.Fatal(err)
	}
	_, err = g.Check(t.Context(), &pb.SourceOp{Identifier: "docker-image://alpine"}, nil)
	if !errors.Is(err, ErrDenied) {
		t.Errorf("%v is no denial", err)
	}
	var words []string
	for _, m := range policysession.DenyMessages(err) {
		words = append(words, m.Message)
	}
	if !slices.Equal(words, []string{"not signed"}) {
		t.Errorf("the client's words are %q", words)
	}
	if got := s.asked[1].Source.Image.GetDigest(); got != "sha256:1" {
		t.Errorf("the client got the digest %q", got)
	}
	if got := s.asked[0].Source.Source.Identifier; got != "docker-image://docker.io/library/alpine:latest" {
		t.Errorf("the client was asked about %q", got)
	}
}

func TestASourceThatPassesKeepsItsSpelling(t *testing.T) {
	t.Parallel()
	g, err := New(Options{Policies: []*spb.Policy{policy(allow("*"))}})
	if err != nil {
		t.Fatal(err)
	}
	const ssh = "git://git@github.com:a/b.git#v1"
	if op, err := g.Check(t.Context(), &pb.SourceOp{Identifier: ssh}, nil); err != nil || op.Identifier != ssh {
		t.Errorf("got %v, %v", op, err)
	}
	if _, err := g.Check(t.Context(), nil, nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("no source: %v", err)
	}
	narrow, err := g.With(policy(deny("*")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := narrow.Check(t.Context(), &pb.SourceOp{Identifier: ssh}, nil); !errors.Is(err, ErrDenied) {
		t.Errorf("under another policy: %v", err)
	}
	if _, err := g.Check(t.Context(), &pb.SourceOp{Identifier: ssh}, nil); err != nil {
		t.Errorf("the first guard has changed: %v", err)
	}
}
