package contents

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stored is a store that holds texts.
func stored(t *testing.T, texts ...string) content.Store {
	t.Helper()
	s, err := local.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range texts {
		d := ocispecs.Descriptor{Digest: digest.FromString(text), Size: int64(len(text))}
		if err := content.WriteBlob(t.Context(), s, text, bytes.NewReader([]byte(text)), d); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// layer is a provider that holds one text.
type layer string

func (l layer) ReaderAt(_ context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	if d.Digest != digest.FromString(string(l)) {
		return nil, errdefs.ErrNotFound
	}
	return &reader{bytes.NewReader([]byte(l))}, nil
}

type reader struct{ *bytes.Reader }

func (r *reader) Size() int64  { return r.Reader.Size() }
func (r *reader) Close() error { return nil }

// served is the union as clients see it, over the wire.
func served(t *testing.T, u *Union) content.Store {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	g := grpc.NewServer()
	u.Register(g)
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(l) }()
	cc, err := grpc.NewClient("passthrough:", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close(); g.Stop(); <-done })
	return proxy.NewContentStore(contentapi.NewContentClient(cc))
}

func TestUnion(t *testing.T) {
	s := served(t, New(stored(t, "one", "both"), WithLayers(stored(t, "both", "two"), layer("three"))))
	for _, text := range []string{"one", "both", "two", "three"} {
		d := ocispecs.Descriptor{Digest: digest.FromString(text)}
		info, err := s.Info(t.Context(), d.Digest)
		if err != nil || info.Size != int64(len(text)) {
			t.Errorf("%s: info %v, %v", text, info, err)
		}
		ra, err := s.ReaderAt(t.Context(), d)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if b, err := io.ReadAll(content.NewReader(ra)); err != nil || string(b) != text {
			t.Errorf("%s: read %q, %v", text, b, err)
		}
		_ = ra.Close()
	}
	n := map[digest.Digest]int{}
	if err := s.Walk(t.Context(), func(i content.Info) error { n[i.Digest]++; return nil }); err != nil {
		t.Fatal(err)
	}
	if len(n) != 2 || n[digest.FromString("both")] != 1 {
		t.Errorf("walked %v", n)
	}
	if _, err := s.Info(t.Context(), digest.FromString("none")); !errdefs.IsNotFound(err) {
		t.Errorf("what is not there: %v", err)
	}
	for _, bad := range []digest.Digest{"", "x", "sha256:..", "sha256:../../../etc/passwd"} {
		if _, err := s.Info(t.Context(), bad); !errdefs.IsInvalidArgument(err) {
			t.Errorf("info of %q: %v", bad, err)
		}
		if _, err := s.ReaderAt(t.Context(), ocispecs.Descriptor{Digest: bad}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("read %q: %v", bad, err)
		}
	}
}

func TestNothingChanges(t *testing.T) {
	held := stored(t, "one")
	s := served(t, New(held))
	d := digest.FromString("one")
	_, update := s.Update(t.Context(), content.Info{Digest: d, Labels: map[string]string{"a": "b"}}, "labels.a")
	write := content.WriteBlob(t.Context(), s, "ref", bytes.NewReader([]byte("new")), ocispecs.Descriptor{Digest: digest.FromString("new"), Size: 3})
	for what, err := range map[string]error{"delete": s.Delete(t.Context(), d), "abort": s.Abort(t.Context(), "ref"), "update": update, "write": write} {
		if !errdefs.IsPermissionDenied(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if list, err := s.ListStatuses(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("writes: %v, %v", list, err)
	}
	if _, err := held.Info(t.Context(), d); err != nil {
		t.Errorf("it is gone: %v", err)
	}
}

// A store that fails is not passed over.
func TestFailuresAreTold(t *testing.T) {
	fault := errors.New("the disk is at fault")
	u := New(failing{stored(t), fault}, stored(t, "one"))
	if _, err := u.Info(t.Context(), digest.FromString("one")); !errors.Is(err, fault) {
		t.Errorf("info: %v", err)
	}
}

type failing struct {
	content.Store
	err error
}

func (f failing) Info(context.Context, digest.Digest) (content.Info, error) {
	return content.Info{}, f.err
}
