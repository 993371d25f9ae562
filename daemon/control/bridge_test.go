package control

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"testing"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client/buildid"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/daemon"
	"github.com/slipwaybuild/slipway/daemon/config"
	"github.com/slipwaybuild/slipway/session/interceptors"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
)

// door is both services over a real engine, and a client of each.
type door struct {
	engine *daemon.Engine
	ctl    controlapi.ControlClient
	bridge gwpb.LLBBridgeClient
}

func openDoor(t *testing.T) *door {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: the layer store mounts file systems")
	}
	log := slog.New(slog.DiscardHandler)
	c := &config.Config{Root: t.TempDir()}
	engine, err := daemon.Open(t.Context(), daemon.Options{Config: c, Version: "test", Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(
		grpc.UnaryInterceptor(grpcerrors.UnaryServerInterceptor), grpc.StreamInterceptor(grpcerrors.StreamServerInterceptor),
		grpc.WaitForHandlers(true), grpc.MaxRecvMsgSize(interceptors.MaxMessage),
	)
	New(engine, engine.Sessions(), "test").Register(server)
	NewBridge(engine).Register(server)
	l := bufconn.Listen(1 << 20)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:door", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
		// An engine that closes without an error has had every hold given back.
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	return &door{engine: engine, ctl: controlapi.NewControlClient(conn), bridge: gwpb.NewLLBBridgeClient(conn)}
}

// drive asks for a build that the client drives, and returns its error once it ended.
func (d *door) drive(ctx context.Context, ref string) chan error {
	ended := make(chan error, 1)
	go func() {
		_, err := d.ctl.Solve(ctx, &controlapi.SolveRequest{Ref: ref})
		ended <- err
	}()
	return ended
}

func of(t *testing.T, ref string) context.Context {
	return buildid.AppendToOutgoingContext(t.Context(), ref)
}

func TestSolveStaysOpenUntilReturn(t *testing.T) {
	t.Parallel()
	d := openDoor(t)
	ended := d.drive(t.Context(), "b")
	if _, err := d.bridge.Ping(of(t, "b"), &gwpb.PingRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.ctl.Solve(t.Context(), &controlapi.SolveRequest{Ref: "b"}); grpcerrors.Code(err) != codes.AlreadyExists {
		t.Errorf("a second build of the same ref: %v", err)
	}
	if _, err := d.bridge.Warn(of(t, "b"), &gwpb.WarnRequest{Short: []byte("w")}); err != nil {
		t.Error(err)
	}
	select {
	case err := <-ended:
		t.Fatalf("Solve answered before Return: %v", err)
	default:
	}
	if _, err := d.bridge.Return(of(t, "b"), &gwpb.ReturnRequest{Result: &gwpb.Result{}}); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if warnings := d.warnings(t, "b"); !slices.Equal(warnings, []string{"w"}) {
		t.Errorf("the story has the warnings %q", warnings)
	}
}

// warnings reads a build's story to its end.
func (d *door) warnings(t *testing.T, ref string) []string {
	t.Helper()
	stream, err := d.ctl.Status(t.Context(), &controlapi.StatusRequest{Ref: ref})
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for {
		res, err := stream.Recv()
		if err == io.EOF { //nolint:errorlint // gRPC returns it as it is
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range res.Warnings {
			list = append(list, string(w.Short))
		}
	}
}

func TestClientGoneReleasesItsBuild(t *testing.T) {
	t.Parallel()
	d := openDoor(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := d.drive(ctx, "b")
	op, err := (&pb.Op{Op: &pb.Op_File{File: &pb.FileOp{Actions: []*pb.FileAction{{
		Input: -1, SecondaryInput: -1, Output: 0,
		Action: &pb.FileAction_Mkfile{Mkfile: &pb.FileActionMkFile{Path: "/f", Mode: 0o644, Data: []byte("x")}},
	}}}}}).MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	res, err := d.bridge.Solve(of(t, "b"), &gwpb.SolveRequest{Definition: closed(t, op), Evaluate: true, AllowResultReturn: true, AllowResultArrayRef: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.bridge.ReadFile(of(t, "b"), &gwpb.ReadFileRequest{Ref: res.Result.GetRef().GetId(), FilePath: "/f"}); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-ended; grpcerrors.Code(err) != codes.Canceled {
		t.Errorf("the build ended with %v", err)
	}
}

// closed is a definition of one op and what asks for its output.
func closed(t testing.TB, op []byte) *pb.Definition {
	t.Helper()
	last, err := (&pb.Op{Inputs: []*pb.Input{{Digest: digestOf(op)}}}).MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	return &pb.Definition{Def: [][]byte{op, last}}
}

func TestCallsForNoBuild(t *testing.T) {
	t.Parallel()
	d := openDoor(t)
	if _, err := d.bridge.Ping(t.Context(), &gwpb.PingRequest{}); grpcerrors.Code(err) != codes.InvalidArgument {
		t.Errorf("a call that names no build: %v", err)
	}
	ctx, cancel := context.WithCancel(of(t, "nobody"))
	cancel()
	if _, err := d.bridge.Ping(ctx, &gwpb.PingRequest{}); grpcerrors.Code(err) != codes.Canceled {
		t.Errorf("a caller who gave up: %v", err)
	}
}

func TestContainerOfNothingIsInvalid(t *testing.T) {
	t.Parallel()
	d := openDoor(t)
	ended := d.drive(t.Context(), "b")
	if _, err := d.bridge.NewContainer(of(t, "b"), &gwpb.NewContainerRequest{}); grpcerrors.Code(err) != codes.InvalidArgument {
		t.Errorf("a container: %v", err)
	}
	if _, err := d.bridge.Return(of(t, "b"), &gwpb.ReturnRequest{Result: &gwpb.Result{}}); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func digestOf(b []byte) string { return string(digest.FromBytes(b)) }
