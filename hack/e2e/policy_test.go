package e2e

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	spb "github.com/moby/buildkit/sourcepolicy/pb"
	"github.com/moby/buildkit/sourcepolicy/policysession"
	"github.com/moby/buildkit/util/grpcerrors"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/source/registry/registrytest"
	"github.com/tonistiigi/fsutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

func denying(pattern string) *spb.Policy {
	return &spb.Policy{Version: 1, Rules: []*spb.Rule{{Action: spb.PolicyAction_DENY, Selector: &spb.Selector{Identifier: pattern}}}}
}

func converting(kind spb.MatchType, from, to string, attrs map[string]string) *spb.Policy {
	return &spb.Policy{Version: 1, Rules: []*spb.Rule{{
		Action:   spb.PolicyAction_CONVERT,
		Selector: &spb.Selector{Identifier: from, MatchType: kind},
		Updates:  &spb.Update{Identifier: to, Attrs: attrs},
	}}}
}

// wantDenied checks an error that clients get of a source that is not allowed.
func wantDenied(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) || grpcerrors.Code(err) != codes.PermissionDenied {
		t.Errorf("got %v (%s), want a denial with %q", err, grpcerrors.Code(err), text)
	}
}

func TestSourcePolicies(t *testing.T) {
	d := startDaemon(t)
	c := d.client(t)
	r := registrytest.New(t, registrytest.Options{})
	good := pushImage(t, r.Host+"/good:1", imageOf(t, layerOf(t, tarOf(t, tarReg("f", "good")))))
	pushImage(t, r.Host+"/bad:1", imageOf(t, layerOf(t, tarOf(t, tarReg("f", "bad")))))
	bad, web := "docker-image://"+r.Host+"/bad:1", serveFiles(t, map[string][]byte{"/data": []byte("over http")})
	dockerfile := func(opt client.SolveOpt) (string, error) {
		out := t.TempDir()
		opt.Frontend = "dockerfile.v0"
		fs := mount(t, write(t, map[string]string{"Dockerfile": "FROM " + r.Host + "/bad:1\n"}))
		opt.LocalMounts = map[string]fsutil.FS{"dockerfile": fs, "context": fs}
		opt.Exports = []client.ExportEntry{{Type: client.ExporterLocal, OutputDir: out}}
		_, err := c.Solve(t.Context(), nil, opt, nil)
		return out, err
	}

	t.Run("denied", func(t *testing.T) {
		r.Forget()
		_, err := trySolve(t, c, llb.Image(r.Host+"/bad:1"), client.SolveOpt{SourcePolicy: denying("docker-image://*bad*")})
		wantDenied(t, err, `source "`+bad+`" denied by policy: source denied by policy`)
		if _, err := dockerfile(client.SolveOpt{SourcePolicy: denying("docker-image://*bad*")}); err == nil || len(errdefs.Sources(err)) == 0 {
			t.Errorf("no source lines: %v", err)
		} else {
			wantDenied(t, err, `source "`+bad+`" denied by policy`)
		}
		if n := r.Count("", "/bad/"); n != 0 {
			t.Errorf("the registry was asked %d times", n)
		}
		_, err = trySolve(t, c, llb.HTTP(web.URL+"/data"), client.SolveOpt{SourcePolicy: denying("http://*")})
		wantDenied(t, err, "denied by policy")
	})
	t.Run("converted", func(t *testing.T) {
		policy := converting(spb.MatchType_WILDCARD, "docker-image://"+r.Host+"/bad:*", "docker-image://"+r.Host+"/good:${1}@"+good, nil)
		if got := read(t, solve(t, c, llb.Image(r.Host+"/bad:1"), client.SolveOpt{SourcePolicy: policy}), "f"); got != "good" {
			t.Errorf("LLB: %q", got)
		}
		out, err := dockerfile(client.SolveOpt{SourcePolicy: policy})
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, out, "f"); got != "good" {
			t.Errorf("Dockerfile: %q", got)
		}
		// What a policy stood in for must not be found in the cache by who has none.
		if got := read(t, solve(t, c, llb.Image(r.Host+"/bad:1"), client.SolveOpt{}), "f"); got != "bad" {
			t.Errorf("without the policy: %q", got)
		}
	})
	t.Run("attributes", func(t *testing.T) {
		policy := converting(spb.MatchType_EXACT, web.URL+"/data", "", map[string]string{pb.AttrHTTPChecksum: digest.FromString("else").String()})
		if _, err := trySolve(t, c, llb.HTTP(web.URL+"/data"), client.SolveOpt{SourcePolicy: policy}); err == nil || !strings.Contains(err.Error(), "digest mismatch") {
			t.Errorf("a checksum that the policy adds: %v", err)
		}
	})
	t.Run("for ever", func(t *testing.T) {
		_, err := trySolve(t, c, llb.Image("example.com/x"), client.SolveOpt{SourcePolicy: converting(spb.MatchType_WILDCARD, "*", "${1}x", nil)})
		if err == nil || !strings.Contains(err.Error(), "too many mutations on a single source") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("nonsense", func(t *testing.T) {
		_, err := trySolve(t, c, llb.Scratch(), client.SolveOpt{SourcePolicy: &spb.Policy{Rules: []*spb.Rule{{}}}})
		if grpcerrors.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "nil selector") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("of one call", func(t *testing.T) { policyOfOneCall(t, c, r.Host+"/bad:1") })
	t.Run("in a nested definition", func(t *testing.T) {
		def, err := llb.Image(r.Host+"/bad:1").Marshal(t.Context(), llb.LinuxAmd64)
		if err != nil {
			t.Fatal(err)
		}
		dt, err := def.ToPB().Marshal()
		if err != nil {
			t.Fatal(err)
		}
		nested := nestedBuild(t, dt)
		if got := read(t, solveDefinition(t, c, nested, client.SolveOpt{}), "f"); got != "bad" {
			t.Errorf("allowed: %q", got)
		}
		_, err = c.Solve(t.Context(), nested, client.SolveOpt{SourcePolicy: denying("*bad*")}, nil)
		wantDenied(t, err, "denied by policy")
	})
}

// policyOfOneCall tries the policies that a driver sends with single calls.
func policyOfOneCall(t *testing.T, c *client.Client, ref string) {
	t.Helper()
	policies := []*spb.Policy{denying("docker-image://*bad*")}
	_, err := c.Build(t.Context(), client.SolveOpt{}, "test", func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
		def, err := llb.Image(ref).Marshal(ctx, llb.LinuxAmd64)
		if err != nil {
			return nil, err
		}
		_, err = g.Solve(ctx, gateway.SolveRequest{Definition: def.ToPB(), SourcePolicies: policies})
		wantDenied(t, err, "denied by policy")
		src := &pb.SourceOp{Identifier: "docker-image://" + ref}
		_, err = g.ResolveSourceMetadata(ctx, src, sourceresolver.Opt{SourcePolicies: policies})
		wantDenied(t, err, "could not resolve image due to policy")
		if _, err := g.ResolveSourceMetadata(ctx, src, sourceresolver.Opt{}); err != nil {
			t.Errorf("the next call: %v", err)
		}
		return g.Solve(ctx, gateway.SolveRequest{Definition: def.ToPB(), Evaluate: true})
	}, nil)
	if err != nil {
		t.Error(err)
	}
}

// nothing is a service that a client does not have.
type nothing struct{}

func (nothing) Register(*grpc.Server) {}

// nestedBuild is a build op whose definition is in a file of a file op.
func nestedBuild(t *testing.T, dt []byte) *llb.Definition {
	t.Helper()
	file, err := llb.Scratch().File(llb.Mkfile("/"+pb.LLBDefaultDefinitionFile, 0o600, dt)).Marshal(t.Context(), llb.LinuxAmd64)
	if err != nil {
		t.Fatal(err)
	}
	at := digest.FromBytes(file.Def[len(file.Def)-2])
	op, err := (&pb.Op{
		Inputs: []*pb.Input{{Digest: string(at)}},
		Op: &pb.Op_Build{Build: &pb.BuildOp{
			Builder: int64(pb.LLBBuilder), Inputs: map[string]*pb.BuildInput{pb.LLBDefinitionInput: {Input: 0}},
		}},
	}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	last, err := (&pb.Op{Inputs: []*pb.Input{{Digest: string(digest.FromBytes(op))}}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	file.Def = append(slices.Clone(file.Def[:len(file.Def)-1]), op, last)
	return file
}

// solveDefinition writes a definition's result to a directory.
func solveDefinition(t *testing.T, c *client.Client, def *llb.Definition, opt client.SolveOpt) string {
	t.Helper()
	out := t.TempDir()
	opt.Exports = []client.ExportEntry{{Type: client.ExporterLocal, OutputDir: out}}
	if _, err := c.Solve(t.Context(), def, opt, nil); err != nil {
		t.Fatal(err)
	}
	return out
}

// clientPolicy decides by a function, and keeps what it was asked.
type clientPolicy struct {
	mu    sync.Mutex
	asked []*policysession.CheckPolicyRequest
}

func (p *clientPolicy) provider(decide func(*policysession.CheckPolicyRequest) (*policysession.DecisionResponse, *gwpb.ResolveSourceMetaRequest)) *policysession.PolicyProvider {
	return policysession.NewPolicyProvider(func(_ context.Context, r *policysession.CheckPolicyRequest) (*policysession.DecisionResponse, *gwpb.ResolveSourceMetaRequest, error) {
		p.mu.Lock()
		p.asked = append(p.asked, r)
		p.mu.Unlock()
		d, more := decide(r)
		return d, more, nil
	})
}

func TestPolicyOfTheClientsSession(t *testing.T) {
	d := startDaemon(t)
	c := d.client(t)
	r := registrytest.New(t, registrytest.Options{})
	good := pushImage(t, r.Host+"/good:1", imageOf(t, layerOf(t, tarOf(t, tarReg("f", "good")))))
	badDigest := pushImage(t, r.Host+"/bad:1", imageOf(t, layerOf(t, tarOf(t, tarReg("f", "bad")))))
	st := llb.Image(r.Host + "/bad:1")
	type (
		request  = policysession.CheckPolicyRequest
		decision = policysession.DecisionResponse
	)

	t.Run("wants more, then denies", func(t *testing.T) {
		p := &clientPolicy{}
		_, err := trySolve(t, c, st, client.SolveOpt{SourcePolicyProvider: p.provider(func(q *request) (*decision, *gwpb.ResolveSourceMetaRequest) {
			if q.Source.Image == nil {
				return nil, &gwpb.ResolveSourceMetaRequest{Source: q.Source.Source, Platform: q.Platform}
			}
			if q.Source.Image.Digest != badDigest || !json.Valid(q.Source.Image.Config) {
				t.Errorf("the client learnt %+v", q.Source.Image)
			}
			return &decision{Action: spb.PolicyAction_DENY, DenyMessages: []*policysession.DenyMessage{{Message: "not signed"}}}, nil
		})})
		wantDenied(t, err, "not allowed by policy: action DENY")
		if m := policysession.DenyMessages(err); len(m) != 1 || m[0].Message != "not signed" {
			t.Errorf("the client's words are %v", m)
		}
		if len(p.asked) != 2 {
			t.Errorf("asked %d times", len(p.asked))
		}
	})
	t.Run("converts", func(t *testing.T) {
		p := &clientPolicy{}
		out := solve(t, c, st, client.SolveOpt{SourcePolicyProvider: p.provider(func(q *request) (*decision, *gwpb.ResolveSourceMetaRequest) {
			if strings.Contains(q.Source.Source.Identifier, "/bad") {
				return &decision{Action: spb.PolicyAction_CONVERT, Update: &pb.SourceOp{Identifier: "docker-image://" + r.Host + "/good:1@" + good}}, nil
			}
			return &decision{Action: spb.PolicyAction_ALLOW}, nil
		})})
		if got := read(t, out, "f"); got != "good" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("no such service", func(t *testing.T) {
		// A client that names a session without a policy must not find everything allowed.
		_, err := trySolve(t, c, st, client.SolveOpt{SourcePolicyProvider: nothing{}})
		if err == nil || !strings.Contains(err.Error(), "policy") {
			t.Errorf("got %v", err)
		}
	})
}

func TestBuildctlSourcePolicyFile(t *testing.T) {
	d := startDaemon(t)
	program := buildctl(t)
	dir := write(t, map[string]string{"Dockerfile": "FROM example.com/denied:1\n"})
	file := filepath.Join(t.TempDir(), "policy.json")
	dt := `{"rules":[{"action":"DENY","selector":{"identifier":"docker-image://example.com/*"}}]}`
	if err := os.WriteFile(file, []byte(dt), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), program, "--addr", "unix://"+d.socket, "build", "--progress", "plain", "--frontend", "dockerfile.v0",
		"--local", "context="+dir, "--local", "dockerfile="+dir, "--source-policy-file", file).CombinedOutput()
	if err == nil || !strings.Contains(string(out), `source "docker-image://example.com/denied:1" denied by policy`) {
		t.Errorf("%v\n%s", err, out)
	}
}
