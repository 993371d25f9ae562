package interceptors_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/moby/buildkit/session/secrets"
	"github.com/moby/buildkit/session/upload"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/slipwaybuild/slipway/session/interceptors"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// log is a buffer that handlers of several goroutines write to.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

type services struct{}

func (services) GetSecret(_ context.Context, req *secrets.GetSecretRequest) (*secrets.GetSecretResponse, error) {
	switch req.ID {
	case "panic":
		panic("unary trouble")
	case "big":
		return &secrets.GetSecretResponse{Data: make([]byte, interceptors.MaxMessage+1)}, nil
	}
	return &secrets.GetSecretResponse{Data: []byte("hunter2")}, nil
}

func (services) Pull(upload.Upload_PullServer) error { panic("stream trouble") }

func connect(t *testing.T, server, client interceptors.Options) *grpc.ClientConn {
	t.Helper()
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(interceptors.Server(server)...)
	secrets.RegisterSecretsServer(srv, services{})
	upload.RegisterUploadServer(srv, services{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l) // ends with Stop
	}()
	cc, err := grpc.NewClient("unix:"+l.Addr().String(), append(interceptors.Client(client), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cc.Close()
		srv.Stop()
		<-done
	})
	return cc
}

func TestPanicFailsItsCallAlone(t *testing.T) {
	t.Parallel()
	out := &log{}
	cc := connect(t, interceptors.Options{Logger: slog.New(slog.NewTextHandler(out, nil))}, interceptors.Options{})
	client := secrets.NewSecretsClient(cc)
	_, err := client.GetSecret(t.Context(), &secrets.GetSecretRequest{ID: "panic"})
	if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "trouble") {
		t.Errorf("unary: %v, want codes.Internal without what panicked", err)
	}
	stream, err := upload.NewUploadClient(cc).Pull(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Internal {
		t.Errorf("stream: %v, want codes.Internal", err)
	}
	if _, err := client.GetSecret(t.Context(), &secrets.GetSecretRequest{}); err != nil {
		t.Errorf("after the panics: %v", err)
	}
	for _, want := range []string{"unary trouble", "stream trouble", "/moby.upload.v1.Upload/Pull", "interceptors_test.go"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the log has no %q:\n%s", want, out)
		}
	}
}

func TestLogHasCallsAndNoPayloads(t *testing.T) {
	t.Parallel()
	server, client := &log{}, &log{}
	debug := &slog.HandlerOptions{Level: slog.LevelDebug}
	cc := connect(t, interceptors.Options{Logger: slog.New(slog.NewTextHandler(server, debug))}, interceptors.Options{Logger: slog.New(slog.NewTextHandler(client, debug))})
	if _, err := secrets.NewSecretsClient(cc).GetSecret(t.Context(), &secrets.GetSecretRequest{ID: "payload"}); err != nil {
		t.Fatal(err)
	}
	if err := cc.Close(); err != nil {
		t.Fatal(err)
	}
	if got := client.String(); strings.Count(got, "level=DEBUG") != 1 || !strings.Contains(got, "GetSecret") || !strings.Contains(got, "grpc.code=OK") {
		t.Errorf("client's log:\n%s", got)
	}
	for _, l := range []*log{server, client} {
		if got := l.String(); strings.Contains(got, "hunter2") || strings.Contains(got, "payload") {
			t.Errorf("a payload in the log:\n%s", got)
		}
	}
}

func TestMessagesAreBounded(t *testing.T) {
	t.Parallel()
	client := secrets.NewSecretsClient(connect(t, interceptors.Options{}, interceptors.Options{}))
	if _, err := client.GetSecret(t.Context(), &secrets.GetSecretRequest{ID: "big"}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("answer over the limit: %v", err)
	}
	if _, err := client.GetSecret(t.Context(), &secrets.GetSecretRequest{ID: strings.Repeat("x", interceptors.MaxMessage+1)}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("request over the limit: %v", err)
	}
}
