package containerd_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/layers/images"
	"github.com/slipwaybuild/slipway/solver/layers/images/containerd"
	"github.com/slipwaybuild/slipway/solver/layers/images/containerdtest"
	"github.com/slipwaybuild/slipway/solver/layers/images/imagestest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T) *containerdtest.Server {
	t.Helper()
	if err := containerdtest.Missing(); err != nil {
		t.Skip(err)
	}
	s, err := containerdtest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("end containerd: %v", err)
		}
	})
	return s
}

func connect(t *testing.T, o containerd.Options) *containerd.Daemon {
	t.Helper()
	d, err := containerd.Connect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// The contract of the image store holds where content, names and leases are a containerd's.
func TestContract(t *testing.T) {
	s := start(t)
	n := 0
	imagestest.Run(t, func(t *testing.T) imagestest.Opener {
		n++
		ns := fmt.Sprintf("test-%d", n)
		return func() (images.Backing, func() error) {
			d, err := containerd.Connect(context.Background(), containerd.Options{Address: "unix://" + s.Address, Namespace: ns})
			if err != nil {
				t.Fatal(err)
			}
			return d, d.Close
		}
	})
}

func TestConnectRefuses(t *testing.T) {
	s := start(t)
	for _, c := range []struct {
		o    containerd.Options
		want string
	}{
		{containerd.Options{Address: t.TempDir() + "/none.sock"}, "no such file"},
		{containerd.Options{Address: "tcp://1.2.3.4:5"}, "not the path of a socket"},
		{containerd.Options{Address: "relative.sock"}, "not the path of a socket"},
		{containerd.Options{Address: s.Address, Namespace: "no/slashes"}, "namespace"},
		{containerd.Options{Address: s.Address, Snapshotter: "imaginary"}, "native"},
	} {
		d, err := containerd.Connect(t.Context(), c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v, want an error with %q", c.o, err, c.want)
		}
		if err == nil {
			_ = d.Close()
		}
	}
	d := connect(t, containerd.Options{Address: s.Address, Snapshotter: "native"})
	if d.UUID() == "" || d.Namespace() != containerd.DefaultNamespace {
		t.Errorf("uuid %q, namespace %q", d.UUID(), d.Namespace())
	}
}

// bytesOf is something large that does not compress.
func bytesOf(t *testing.T, n int) ([]byte, ocispecs.Descriptor) {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b, ocispecs.Descriptor{Digest: digest.FromBytes(b), Size: int64(n)}
}

// lease keeps what is written.
func lease(t *testing.T, d *containerd.Daemon) context.Context {
	t.Helper()
	l, err := d.Leases().Create(t.Context(), leases.WithRandomID())
	if err != nil {
		t.Fatal(err)
	}
	return leases.WithLease(t.Context(), l.ID)
}

func restart(t *testing.T, s *containerdtest.Server) {
	t.Helper()
	if err := errors.Join(s.Stop(true), s.Run()); err != nil {
		t.Fatal(err)
	}
}

// Containerd dies and comes back in the middle of writing, between calls and in the middle of reading.
func TestRestartOfContainerd(t *testing.T) {
	s := start(t)
	d := connect(t, containerd.Options{Address: s.Address})
	ctx := lease(t, d)
	data, desc := bytesOf(t, 5<<20)
	w, err := content.OpenWriter(ctx, d.Content(), content.WithRef("x"), content.WithDescriptor(desc))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range [][]byte{data[:1], data[1 : 3<<20], data[3<<20:]} {
		if n, err := w.Write(part); err != nil || n != len(part) {
			t.Fatalf("wrote %d of %d: %v", n, len(part), err)
		}
		restart(t, s)
	}
	if err := w.Commit(ctx, desc.Size, desc.Digest); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil || w.Digest() != desc.Digest {
		t.Errorf("closed: %v, digest %s", err, w.Digest())
	}
	restart(t, s)
	ra, err := d.Content().ReaderAt(ctx, desc)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	r := io.NewSectionReader(ra, 0, ra.Size())
	if _, err := io.CopyN(&got, r, 100); err != nil {
		t.Fatal(err)
	}
	restart(t, s)
	if _, err := io.Copy(&got, r); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), data) {
		t.Error("what was read is not what was written")
	}
	if err := ra.Close(); err != nil {
		t.Error(err)
	}
	restart(t, s)
	n := 0
	if err := d.Content().Walk(ctx, func(content.Info) error { n++; return nil }); err != nil || n != 1 {
		t.Errorf("walked over %d blobs, %v", n, err)
	}
}

// When containerd stays away, everything ends with an error that says so, what waits for a lock of a writer too.
func TestContainerdGone(t *testing.T) {
	s := start(t)
	d := connect(t, containerd.Options{Address: s.Address, Patience: time.Millisecond})
	data, desc := bytesOf(t, 2<<20)
	w, err := content.OpenWriter(t.Context(), d.Content(), content.WithRef("x"), content.WithDescriptor(desc))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }() // it is broken
	if err := s.Stop(true); err != nil {
		t.Fatal(err)
	}
	_, openErr := content.OpenWriter(t.Context(), d.Content(), content.WithRef("y"), content.WithDescriptor(desc))
	_, writeErr := w.Write(data)
	_, listErr := d.Images().List(t.Context())
	for what, err := range map[string]error{
		"open": openErr, "write": writeErr, "list": listErr, "collect": d.Collect(t.Context()),
		"walk": d.Content().Walk(t.Context(), func(content.Info) error { return nil }),
	} {
		if err == nil || !strings.Contains(err.Error(), "containerd at "+s.Address+" does not answer") {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

// Two writers of one thing take turns.
func TestWritersWaitForEachOther(t *testing.T) {
	s := start(t)
	d := connect(t, containerd.Options{Address: s.Address})
	ctx := lease(t, d)
	data, desc := bytesOf(t, 100)
	first, err := content.OpenWriter(ctx, d.Content(), content.WithRef("x"), content.WithDescriptor(desc))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Content().Writer(ctx, content.WithRef("x"), content.WithDescriptor(desc)); !errdefs.IsUnavailable(err) {
		t.Errorf("got %v, want the error that one waits for", err)
	}
	second := make(chan error, 1)
	go func() {
		second <- content.WriteBlob(ctx, d.Content(), "x", bytes.NewReader(data), desc)
	}()
	if _, err := first.Write(data[:50]); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-second; err != nil {
		t.Error(err)
	}
	if got, err := content.ReadBlob(ctx, d.Content(), desc); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
}

func TestReadAt(t *testing.T) {
	s := start(t)
	d := connect(t, containerd.Options{Address: s.Address})
	ctx := lease(t, d)
	data, desc := bytesOf(t, 3<<20+17)
	if err := content.WriteBlob(ctx, d.Content(), "x", bytes.NewReader(data), desc); err != nil {
		t.Fatal(err)
	}
	ra, err := d.Content().ReaderAt(ctx, desc)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := ra.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, c := range []struct{ off, n int }{{0, 1}, {1<<20 - 3, 10}, {5, 1 << 20}, {0, 3<<20 + 17}, {3 << 20, 17}, {3<<20 + 16, 1}, {2, 700_000}} {
		p := make([]byte, c.n)
		if n, err := ra.ReadAt(p, int64(c.off)); n != c.n || err != nil || !bytes.Equal(p, data[c.off:c.off+c.n]) {
			t.Errorf("%+v: %d bytes, %v", c, n, err)
		}
	}
	p := make([]byte, 100)
	if n, err := ra.ReadAt(p, desc.Size-10); n != 10 || !errors.Is(err, io.EOF) || !bytes.Equal(p[:10], data[len(data)-10:]) {
		t.Errorf("over the end: %d, %v", n, err)
	}
	if n, err := ra.ReadAt(p, desc.Size); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %d, %v", n, err)
	}
	if _, err := ra.ReadAt(p, -1); err == nil {
		t.Error("a negative offset is no error")
	}
}

func TestMissingSaysWhatIsMissing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	t.Setenv("PATH", t.TempDir())
	if err := containerdtest.Missing(); err == nil || !strings.Contains(err.Error(), "containerd") {
		t.Errorf("got %v", err)
	}
}
