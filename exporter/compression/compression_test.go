package compression_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/exporter/compression"
	"github.com/slipwaybuild/slipway/exporter/internal/exportertest"
	"github.com/slipwaybuild/slipway/solver/layers/decompress"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// source is a layer to compress that counts how often it is read.
type source struct {
	data   []byte
	opened atomic.Int32
	// hook, if set, stands in front of the data.
	hook func() error
}

// text is data that compresses somewhat, the same in every run.
func text(size int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, size)
	for i := range b {
		b[i] = "abcdefgh"[r.IntN(8)]
	}
	return b
}

func (s *source) id() digest.Digest { return digest.FromBytes(s.data) }

func (s *source) open(context.Context) (io.ReadCloser, error) {
	s.opened.Add(1)
	return io.NopCloser(io.MultiReader(bytes.NewReader(s.data[:len(s.data)/2]), reader(func([]byte) (int, error) {
		if s.hook != nil {
			if err := s.hook(); err != nil {
				return 0, err
			}
		}
		return 0, io.EOF
	}), bytes.NewReader(s.data[len(s.data)/2:]))), nil
}

type reader func([]byte) (int, error)

func (r reader) Read(p []byte) (int, error) { return r(p) }

func leased(t *testing.T, b *exportertest.Bench) context.Context {
	t.Helper()
	ctx, done, err := b.Images.WithLease(t.Context())
	b.OK(err)
	t.Cleanup(func() { b.OK(done(context.WithoutCancel(ctx))) })
	return ctx
}

func specs() []compression.Spec {
	return []compression.Spec{
		{Type: compression.Gzip, Level: compression.DefaultLevel}, {Type: compression.Gzip, Level: 0}, {Type: compression.Gzip, Level: 9},
		{Type: compression.Zstd, Level: compression.DefaultLevel}, {Type: compression.Zstd, Level: 1}, {Type: compression.Zstd, Level: 12},
	}
}

// The bytes are the same with any number of cores, and are those of the layer.
func TestSameEverywhere(t *testing.T) {
	b := exportertest.New(t)
	ctx := leased(t, b)
	for _, data := range [][]byte{text(1<<20 + 123), nil, make([]byte, 1024)} {
		for _, s := range specs() {
			found := map[digest.Digest]int64{}
			for _, procs := range []int{1, 2, 5} {
				src := &source{data: data}
				before := runtime.GOMAXPROCS(procs)
				// Under an id of its own, so that it is not found.
				d, err := compression.Compress(ctx, b.Images.Content(), s, digest.FromString(fmt.Sprint(len(data), procs)), src.open)
				runtime.GOMAXPROCS(before)
				b.OK(err)
				found[d.Digest] = d.Size
				check(ctx, t, b, d, data)
				if src.opened.Load() != 1 {
					t.Errorf("read %d times", src.opened.Load())
				}
			}
			if len(found) != 1 {
				t.Errorf("%v of %d bytes: %v", s, len(data), found)
			}
		}
	}
}

func check(ctx context.Context, t *testing.T, b *exportertest.Bench, d ocispecs.Descriptor, want []byte) {
	t.Helper()
	blob, err := content.ReadBlob(ctx, b.Images.Content(), d)
	b.OK(err)
	if digest.FromBytes(blob) != d.Digest || int64(len(blob)) != d.Size {
		t.Errorf("%v is %d bytes of %s", d, len(blob), digest.FromBytes(blob))
	}
	r, err := decompress.NewReader(bytes.NewReader(blob))
	b.OK(err)
	got, err := io.ReadAll(r)
	b.OK(errors.Join(err, r.Close()))
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes came back of %d", len(got), len(want))
	}
}

func TestOnce(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	ctx := leased(t, b)
	src := &source{data: text(1 << 20)}
	gz := compression.Spec{Type: compression.Gzip, Level: compression.DefaultLevel}
	var wg sync.WaitGroup
	var found sync.Map
	for range 8 {
		wg.Go(func() {
			d, err := compression.Compress(ctx, b.Images.Content(), gz, src.id(), src.open)
			if err != nil {
				t.Error(err)
			}
			found.Store(d.Digest, d.Size)
		})
	}
	wg.Wait()
	n := 0
	found.Range(func(any, any) bool { n++; return true })
	if src.opened.Load() != 1 || n != 1 {
		t.Errorf("compressed %d times into %d blobs", src.opened.Load(), n)
	}
	_, err := compression.Compress(ctx, b.Images.Content(), compression.Spec{Type: compression.Gzip, Level: 1}, src.id(), src.open)
	b.OK(err)
	if src.opened.Load() != 2 {
		t.Error("another level is another blob")
	}
}

// What was made under a lease that ended is found while it is there, and from then on kept by the new lease.
func TestFoundBlobIsLeased(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	src := &source{data: text(1 << 16)}
	gz := compression.Spec{Type: compression.Gzip, Level: compression.DefaultLevel}
	ctx, done, err := b.Images.WithLease(t.Context())
	b.OK(err)
	_, err = compression.Compress(ctx, b.Images.Content(), gz, src.id(), src.open)
	b.OK(errors.Join(err, done(t.Context())))
	ctx = leased(t, b)
	d, err := compression.Compress(ctx, b.Images.Content(), gz, src.id(), src.open)
	b.OK(err)
	if src.opened.Load() != 1 {
		t.Error("it was not found")
	}
	if _, ok := b.Content()[d.Digest.String()]; !ok {
		t.Error("it was collected")
	}
}

// The same bytes may be there without saying what they were made from.
func TestSameBytesFromElsewhere(t *testing.T) {
	t.Parallel()
	src := &source{data: text(1 << 16)}
	gz := compression.Spec{Type: compression.Gzip, Level: compression.DefaultLevel}
	other := exportertest.New(t)
	d, err := compression.Compress(leased(t, other), other.Images.Content(), gz, src.id(), src.open)
	other.OK(err)
	blob, err := content.ReadBlob(t.Context(), other.Images.Content(), d)
	other.OK(err)

	b := exportertest.New(t)
	ctx := leased(t, b)
	b.OK(content.WriteBlob(ctx, b.Images.Content(), "x", bytes.NewReader(blob), d))
	for range 2 {
		again, err := compression.Compress(ctx, b.Images.Content(), gz, src.id(), src.open)
		b.OK(err)
		if again.Digest != d.Digest || again.Size != d.Size {
			t.Errorf("%v is not %v", again, d)
		}
	}
	if src.opened.Load() != 2 {
		t.Errorf("compressed %d times, want once in each store", src.opened.Load())
	}
}

func TestInterruptedLeavesNothing(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	for _, s := range specs() {
		ctx, done, err := b.Images.WithLease(t.Context())
		b.OK(err)
		broken := errors.New("disk broke")
		src := &source{data: text(1 << 20), hook: func() error { return broken }}
		if _, err := compression.Compress(ctx, b.Images.Content(), s, src.id(), src.open); !errors.Is(err, broken) {
			t.Errorf("%v: got %v", s, err)
		}
		left, err := b.Images.Content().ListStatuses(ctx)
		b.OK(err)
		if len(left) != 0 || len(b.Content()) != 0 {
			t.Errorf("%v: left %v, %v", s, left, b.Content())
		}
		src.hook = nil
		d, err := compression.Compress(ctx, b.Images.Content(), s, src.id(), src.open)
		b.OK(err)
		check(ctx, t, b, d, src.data)
		b.OK(done(ctx))
	}
}

// fullStore is a content store on a disk that is full soon.
type fullStore struct{ content.Store }

type fullWriter struct {
	content.Writer
	left int
}

var errFull = errors.New("disk full")

func (s fullStore) Writer(ctx context.Context, o ...content.WriterOpt) (content.Writer, error) {
	w, err := s.Store.Writer(ctx, o...)
	return &fullWriter{w, 1 << 16}, err
}

func (w *fullWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, errFull
	}
	return w.Writer.Write(p)
}

func TestDiskFull(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	ctx := leased(t, b)
	src := &source{data: text(16 << 20)}
	for _, s := range specs() {
		if s.Level > 10 {
			continue // the same, slowly
		}
		if _, err := compression.Compress(ctx, fullStore{b.Images.Content()}, s, src.id(), src.open); !errors.Is(err, errFull) {
			t.Errorf("%v: got %v", s, err)
		}
	}
	left, err := b.Images.Content().ListStatuses(ctx)
	b.OK(err)
	if len(left) != 0 || len(b.Content()) != 0 {
		t.Errorf("left %v, %v", left, b.Content())
	}
}

// One who waits for another's work may leave.
func TestWaiterLeaves(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	ctx := leased(t, b)
	gz := compression.Spec{Type: compression.Gzip, Level: compression.DefaultLevel}
	started, goOn := make(chan struct{}), make(chan struct{})
	src := &source{data: text(1 << 16), hook: func() error { close(started); <-goOn; return nil }}
	done := make(chan error, 1)
	go func() {
		_, err := compression.Compress(ctx, b.Images.Content(), gz, src.id(), src.open)
		done <- err
	}()
	<-started
	waiting, leave := context.WithCancel(ctx)
	leave()
	if _, err := compression.Compress(waiting, b.Images.Content(), gz, src.id(), src.open); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(goOn)
	b.OK(<-done)
}

func TestUnknown(t *testing.T) {
	t.Parallel()
	b := exportertest.New(t)
	src := &source{data: text(10)}
	for _, s := range []compression.Spec{{Type: "rar"}, {Type: compression.Uncompressed}, {Type: compression.Gzip, Level: 50}} {
		if _, err := compression.Compress(leased(t, b), b.Images.Content(), s, src.id(), src.open); err == nil {
			t.Errorf("%v: no error", s)
		}
	}
	if _, err := compression.EStargz.MediaType(false); err == nil {
		t.Error("Docker has no eStargz")
	}
}

func BenchmarkCompress(bench *testing.B) {
	for _, s := range specs() {
		bench.Run(fmt.Sprintf("%s %d", s.Type, s.Level), func(bench *testing.B) {
			b := exportertest.New(bench)
			ctx, done, err := b.Images.WithLease(bench.Context())
			b.OK(err)
			defer func() { b.OK(done(ctx)) }()
			data := text(16 << 20)
			bench.SetBytes(int64(len(data)))
			for i := 0; bench.Loop(); i++ {
				data[0] = byte(i) // another layer each time
				src := &source{data: data}
				_, err := compression.Compress(ctx, b.Images.Content(), s, digest.FromString(fmt.Sprint(i)), src.open)
				b.OK(err)
			}
		})
	}
}
