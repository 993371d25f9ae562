package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/moby/buildkit/client/llb/sourceresolver"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	policypb "github.com/moby/buildkit/sourcepolicy/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/frontend"
	"github.com/slipwaybuild/slipway/frontend/gateway"
	fstypes "github.com/tonistiigi/fsutil/types"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
)

// fakeBridge solves everything to references that hold the same file.
type fakeBridge struct {
	data    []byte
	block   chan struct{} // if not nil, evaluating waits for it
	several bool
}

type fakeRef struct {
	b   *fakeBridge
	def *pb.Definition
}

func (b *fakeBridge) Solve(_ context.Context, def *pb.Definition, _ bool) (frontend.Reference, error) {
	return &fakeRef{b, def}, nil
}

func (b *fakeBridge) Frontend(context.Context, string, frontend.Request) (*frontend.Result, error) {
	res := gwclient.NewResult()
	if !b.several {
		res.SetRef(&gateway.Reference{Reference: &fakeRef{b: b}})
		return res, nil
	}
	res.AddRef("one", &gateway.Reference{Reference: &fakeRef{b: b}})
	res.AddRef("nothing", nil)
	return res, nil
}

func (b *fakeBridge) ResolveSource(_ context.Context, op *pb.SourceOp, _ sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	return &sourceresolver.MetaResponse{Op: op, Image: &sourceresolver.ResolveImageResponse{Digest: "d", Config: []byte("c")}}, nil
}

func (b *fakeBridge) Restrict([]*policypb.Policy) (frontend.Bridge, error) { return b, nil }

func (b *fakeBridge) Warn(context.Context, digest.Digest, string, gwclient.WarnOpts) error {
	return nil
}
func (b *fakeBridge) Session() string                           { return "" }
func (b *fakeBridge) Workers() []gwclient.WorkerInfo            { return []gwclient.WorkerInfo{{ID: "w"}} }
func (b *fakeBridge) Product() string                           { return "fake" }
func (b *fakeBridge) Log(string) io.WriteCloser                 { return nil }
func (b *fakeBridge) ImportCaches([]gwclient.CacheOptionsEntry) {}
func (b *fakeBridge) NewContainer(context.Context, gwclient.NewContainerRequest) (gwclient.Container, error) {
	return nil, errors.ErrUnsupported
}

func (r *fakeRef) Definition() *pb.Definition { return r.def }

func (r *fakeRef) Evaluate(ctx context.Context) error {
	if r.b.block == nil {
		return nil
	}
	select {
	case <-r.b.block:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *fakeRef) ReadFile(_ context.Context, req gwclient.ReadRequest) ([]byte, error) {
	if req.Filename != "f" {
		return nil, &fs.PathError{Op: "open", Path: req.Filename, Err: fs.ErrNotExist}
	}
	data := r.b.data[min(len(r.b.data), req.Range.Offset):]
	return data[:min(len(data), req.Range.Length)], nil
}

func (r *fakeRef) StatFile(context.Context, gwclient.StatRequest) (*fstypes.Stat, error) {
	return &fstypes.Stat{}, nil
}

func (r *fakeRef) ReadDir(context.Context, gwclient.ReadDirRequest) ([]*fstypes.Stat, error) {
	return nil, nil
}

func opened(t *testing.T, b *fakeBridge) *Gateway {
	t.Helper()
	g := newGateway(t.Context(), b, frontend.Request{})
	t.Cleanup(func() {
		if err := g.end(); err != nil {
			t.Error(err)
		}
	})
	return g
}

var someDefinition = &pb.Definition{Def: [][]byte{{1}}}

// solved is the id of a reference.
func solved(t *testing.T, g *Gateway) string {
	t.Helper()
	res, err := g.Solve(t.Context(), &gwpb.SolveRequest{Definition: someDefinition, AllowResultReturn: true, AllowResultArrayRef: true})
	if err != nil || res.Result.GetRef().GetId() == "" {
		t.Fatalf("solve: %v, %v", res, err)
	}
	return res.Result.GetRef().GetId()
}

func TestReturnedReferencesAreThoseGivenOut(t *testing.T) {
	t.Parallel()
	g := opened(t, &fakeBridge{})
	one, two := solved(t, g), solved(t, g)
	if one == two {
		t.Fatal("two references have one id")
	}
	_, err := g.Return(t.Context(), &gwpb.ReturnRequest{Result: &gwpb.Result{
		Metadata: map[string][]byte{"k": []byte("v")},
		Result:   &gwpb.Result_Refs{Refs: &gwpb.RefMap{Refs: map[string]*gwpb.Ref{"a": {Id: one}, "b": {Id: two}, "c": nil}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	res, err := g.wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Refs) != 3 || res.Refs["a"] == nil || res.Refs["a"] == res.Refs["b"] || res.Refs["c"] != nil || string(res.Metadata["k"]) != "v" {
		t.Errorf("got %v", res)
	}
}

func TestReturnForms(t *testing.T) {
	t.Parallel()
	for name, form := range map[string]func(id string) *gwpb.Result{
		"reference": func(id string) *gwpb.Result { return &gwpb.Result{Result: &gwpb.Result_Ref{Ref: &gwpb.Ref{Id: id}}} },
		"old reference": func(id string) *gwpb.Result {
			return &gwpb.Result{Result: &gwpb.Result_RefDeprecated{RefDeprecated: id}}
		},
		"several":           func(id string) *gwpb.Result { return refsResult(map[string]*gwpb.Ref{"x": {Id: id}}) },
		"several, old form": func(id string) *gwpb.Result { return oldRefsResult(map[string]string{"x": id}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := opened(t, &fakeBridge{})
			if _, err := g.Return(t.Context(), &gwpb.ReturnRequest{Result: form(solved(t, g))}); err != nil {
				t.Fatal(err)
			}
			res, err := g.wait(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if ref, ok := res.FindRef("x"); !ok && res.Ref == nil || ok && ref == nil {
				t.Errorf("no reference came back: %v", res)
			}
		})
	}
}

func refsResult(refs map[string]*gwpb.Ref) *gwpb.Result {
	return &gwpb.Result{Result: &gwpb.Result_Refs{Refs: &gwpb.RefMap{Refs: refs}}}
}

func oldRefsResult(refs map[string]string) *gwpb.Result {
	return &gwpb.Result{Result: &gwpb.Result_RefsDeprecated{RefsDeprecated: &gwpb.RefMapDeprecated{Refs: refs}}}
}

func TestSolveAnswersInTheFormAskedFor(t *testing.T) {
	t.Parallel()
	single, several := opened(t, &fakeBridge{}), opened(t, &fakeBridge{several: true})
	req := func(result, arrays bool) *gwpb.SolveRequest {
		return &gwpb.SolveRequest{Frontend: "f", AllowResultReturn: result, AllowResultArrayRef: arrays}
	}
	if res, err := single.Solve(t.Context(), req(false, false)); err != nil || res.Ref == "" || res.Ref != res.Result.GetRefDeprecated() {
		t.Errorf("a client without results: %v, %v", res, err)
	}
	if res, err := single.Solve(t.Context(), req(true, false)); err != nil || res.Ref != "" || res.Result.GetRefDeprecated() == "" {
		t.Errorf("a client without arrays: %v, %v", res, err)
	}
	res, err := several.Solve(t.Context(), req(true, true))
	if refs := res.GetResult().GetRefs().GetRefs(); err != nil || refs["one"].GetId() == "" || refs["nothing"].GetId() != "" || len(refs) != 2 {
		t.Errorf("several references: %v, %v", res, err)
	}
	res, err = several.Solve(t.Context(), req(true, false))
	if refs := res.GetResult().GetRefsDeprecated().GetRefs(); err != nil || refs["one"] == "" || len(refs) != 2 {
		t.Errorf("several references, old form: %v, %v", res, err)
	}
	if _, err := several.Solve(t.Context(), req(false, false)); !errors.Is(err, ErrInvalidRequest) {
		t.Errorf("several references for a client without results: %v", err)
	}
}

// TestRefused lists what a driver must not get away with, or is not served yet.
func TestRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		call func(context.Context, *Gateway) error
		code codes.Code
		is   error
	}{
		"frontend and definition": {is: ErrInvalidRequest, call: solves(&gwpb.SolveRequest{Frontend: "f", Definition: someDefinition})},
		"solve that is final":     {code: codes.Unimplemented, call: solves(&gwpb.SolveRequest{Definition: someDefinition, Final: true})},
		"return of nothing":       {is: ErrInvalidRequest, call: returns(&gwpb.ReturnRequest{})},
		"return of no error":      {is: ErrInvalidRequest, call: returns(&gwpb.ReturnRequest{Error: &spb.Status{}})},
		"unknown reference":       {code: codes.NotFound, call: returns(&gwpb.ReturnRequest{Result: &gwpb.Result{Result: &gwpb.Result_RefDeprecated{RefDeprecated: "x"}}})},
		"empty attestation": {is: ErrInvalidRequest, call: returns(&gwpb.ReturnRequest{Result: &gwpb.Result{
			Attestations: map[string]*gwpb.Attestations{"x": {Attestation: []*gwpb.Attestation{nil}}},
		}})},
		"attestation of an unknown reference": {code: codes.NotFound, call: returns(&gwpb.ReturnRequest{Result: &gwpb.Result{
			Attestations: map[string]*gwpb.Attestations{"x": {Attestation: []*gwpb.Attestation{{Ref: &gwpb.Ref{Id: "x"}}}}},
		}})},
		"read of an unknown reference": {code: codes.NotFound, call: func(ctx context.Context, g *Gateway) error {
			_, err := g.ReadFile(ctx, &gwpb.ReadFileRequest{Ref: "x", FilePath: "f"})
			return err
		}},
		"negative range": {is: ErrInvalidRequest, call: reads("f", &gwpb.FileRange{Offset: -1})},
		"missing file":   {code: codes.NotFound, call: reads("g", nil)},
		"no source":      {is: ErrInvalidRequest, call: resolves(&gwpb.ResolveSourceMetaRequest{})},
		"unknown resolver": {is: ErrInvalidRequest, call: func(ctx context.Context, g *Gateway) error {
			_, err := g.ResolveImageConfig(ctx, &gwpb.ResolveImageConfigRequest{Ref: "x", ResolverType: 9})
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := c.call(t.Context(), opened(t, &fakeBridge{}))
			if err == nil || c.is != nil && !errors.Is(err, c.is) || c.is == nil && grpcerrors.Code(err) != c.code {
				t.Errorf("got %v, code %v", err, grpcerrors.Code(err))
			}
		})
	}
}

func solves(r *gwpb.SolveRequest) func(context.Context, *Gateway) error {
	return func(ctx context.Context, g *Gateway) error {
		_, err := g.Solve(ctx, r)
		return err
	}
}

func returns(r *gwpb.ReturnRequest) func(context.Context, *Gateway) error {
	return func(ctx context.Context, g *Gateway) error {
		_, err := g.Return(ctx, r)
		return err
	}
}

func resolves(r *gwpb.ResolveSourceMetaRequest) func(context.Context, *Gateway) error {
	return func(ctx context.Context, g *Gateway) error {
		_, err := g.ResolveSourceMeta(ctx, r)
		return err
	}
}

func reads(name string, r *gwpb.FileRange) func(context.Context, *Gateway) error {
	return func(ctx context.Context, g *Gateway) error {
		res, err := g.Solve(ctx, &gwpb.SolveRequest{Definition: someDefinition})
		if err != nil {
			return fmt.Errorf("solve: %w", err)
		}
		_, err = g.ReadFile(ctx, &gwpb.ReadFileRequest{Ref: res.Ref, FilePath: name, Range: r})
		return err
	}
}

func TestReadFileThatFitsNoAnswer(t *testing.T) {
	t.Parallel()
	g := opened(t, &fakeBridge{data: make([]byte, maxFile+1)})
	ref := solved(t, g)
	if _, err := g.ReadFile(t.Context(), &gwpb.ReadFileRequest{Ref: ref, FilePath: "f"}); grpcerrors.Code(err) != codes.ResourceExhausted {
		t.Errorf("the whole file: %v", err)
	}
	res, err := g.ReadFile(t.Context(), &gwpb.ReadFileRequest{Ref: ref, FilePath: "f", Range: &gwpb.FileRange{Offset: 1, Length: maxFile}})
	if err != nil || len(res.Data) != maxFile {
		t.Errorf("as much as fits: %d bytes, %v", len(res.GetData()), err)
	}
}

func TestSecondReturnIsRefused(t *testing.T) {
	t.Parallel()
	g := opened(t, &fakeBridge{})
	first := &gwpb.ReturnRequest{Error: &spb.Status{Code: int32(codes.Aborted), Message: "stop"}}
	if _, err := g.Return(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Return(t.Context(), &gwpb.ReturnRequest{Result: &gwpb.Result{}}); !errors.Is(err, ErrReturned) {
		t.Errorf("the second return: %v", err)
	}
	if _, err := g.wait(t.Context()); grpcerrors.Code(err) != codes.Aborted {
		t.Errorf("the outcome is %v", err)
	}
}

func TestEndOfBuildEndsItsCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(t.Context(), &fakeBridge{block: make(chan struct{})}, frontend.Request{})
		ref := solved(t, g)
		failed := make(chan error, 1)
		go func() {
			_, err := g.Evaluate(t.Context(), &gwpb.EvaluateRequest{Ref: ref})
			failed <- err
		}()
		synctest.Wait()
		g.end()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("the call under way: %v", err)
		}
		if _, err := g.Evaluate(t.Context(), &gwpb.EvaluateRequest{Ref: ref}); !errors.Is(err, ErrNoBuild) {
			t.Errorf("a call after the end: %v", err)
		}
	})
}

func TestDriverGoneEndsTheWait(t *testing.T) {
	t.Parallel()
	g := opened(t, &fakeBridge{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := g.wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestPingAdvertisesWhatWorks(t *testing.T) {
	t.Parallel()
	res, err := opened(t, &fakeBridge{}).Ping(t.Context(), &gwpb.PingRequest{})
	if err != nil || len(res.Workers) != 1 || len(res.LLBCaps) == 0 {
		t.Fatalf("%v, %v", res, err)
	}
	var ids []string
	for _, c := range res.FrontendAPICaps {
		ids = append(ids, c.ID)
	}
	if !slices.Contains(ids, string(gwpb.CapReturnResult)) || !slices.Contains(ids, string(gwpb.CapGatewayExec)) || slices.Contains(ids, string(gwpb.CapSolveInlineReturn)) {
		t.Errorf("advertised: %v", ids)
	}
}
