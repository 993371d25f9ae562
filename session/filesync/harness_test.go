package filesync

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipwaybuild/slipway/session"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
)

// registrar is what both our attachables and BuildKit's are.
type registrar interface{ Register(*grpc.Server) }

// fakeCaller is a session whose client runs in this process.
type fakeCaller struct {
	conn *grpc.ClientConn
	done chan struct{}
	// supports is nil for everything.
	supports func(string) bool
}

var _ session.Caller = (*fakeCaller)(nil)

func (c *fakeCaller) ID() string             { return "test" }
func (c *fakeCaller) Name() string           { return "" }
func (c *fakeCaller) SharedKey() string      { return "" }
func (c *fakeCaller) Conn() *grpc.ClientConn { return c.conn }
func (c *fakeCaller) Done() <-chan struct{}  { return c.done }
func (c *fakeCaller) Supports(m string) bool { return c.supports == nil || c.supports(m) }

// connect serves attachables and returns the daemon's end.
func connect(t testing.TB, services ...registrar) *fakeCaller {
	t.Helper()
	l := bufconn.Listen(256 << 10)
	srv := grpc.NewServer()
	for _, s := range services {
		s.Register(srv)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := srv.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Errorf("serve: %v", err)
		}
	}()
	conn, err := grpc.NewClient("passthrough:///session",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	c := &fakeCaller{conn: conn, done: make(chan struct{})}
	t.Cleanup(func() {
		_ = conn.Close()
		srv.Stop()
		<-served
		close(c.done)
	})
	return c
}

// writeTree makes files under a new directory: "name" to contents, a name ending in "/" is a directory, contents that start
// with "-> " a symlink.
func writeTree(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		switch {
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(p, 0o755)
		case strings.HasPrefix(content, "-> "):
			err = os.Symlink(strings.TrimPrefix(content, "-> "), p)
		default:
			err = os.WriteFile(p, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// collect drains a transfer: path to contents, "dir" and "-> target" for the rest.
func collect(ctx context.Context, tr *Transfer) (map[string]string, error) {
	out := map[string]string{}
	for {
		f, err := tr.Next(ctx)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		switch {
		case f.Content != nil:
			b, err := io.ReadAll(f.Content)
			if err != nil {
				return out, err
			}
			out[f.Stat.Path] = string(b)
		case f.Stat.IsDir():
			out[f.Stat.Path] = "dir"
		case f.Stat.Linkname != "":
			out[f.Stat.Path] = "-> " + f.Stat.Linkname
		default:
			out[f.Stat.Path] = "unread"
		}
	}
}

func syncAll(t testing.TB, c session.Caller, req Request) map[string]string {
	t.Helper()
	tr, err := Sync(t.Context(), c, req)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	got, err := collect(t.Context(), tr)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func withDir(ctx context.Context, name string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, keyDirName, name)
}
