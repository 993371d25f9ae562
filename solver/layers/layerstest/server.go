package layerstest

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/klauspost/compress/zstd"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// server is a Fetcher of one blob.
type server struct {
	data   []byte
	desc   ocispecs.Descriptor
	opened atomic.Int32
	// breakAt ends the first streams after so many bytes each.
	mu      sync.Mutex
	breakAt []int
	// breakErr is what they end with; nil is a reset connection.
	breakErr error
	// refuse is what Fetch returns, if it is set.
	refuse error
	// block, if set, holds streams back until it is closed; they end with their context.
	block chan struct{}
	// blocked is told when a stream is held back.
	blocked chan struct{}
}

func newServer(data []byte) *server {
	return &server{data: data, desc: ocispecs.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}, blocked: make(chan struct{}, 1)}
}

func (s *server) remote(diffID digest.Digest) layers.RemoteBlob {
	return layers.RemoteBlob{Ref: "example.com/image", Descriptor: s.desc, DiffID: diffID}
}

func (s *server) Fetch(ctx context.Context, b layers.RemoteBlob) (io.ReadCloser, error) {
	s.opened.Add(1)
	if s.refuse != nil {
		return nil, s.refuse
	}
	if b.Descriptor.Digest != s.desc.Digest {
		return nil, errors.New("no such blob")
	}
	return s.stream(ctx, 0), nil
}

func (s *server) stream(ctx context.Context, offset int64) io.ReadCloser {
	r := &serverStream{s: s, ctx: ctx, r: bytes.NewReader(s.data[offset:]), left: -1}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.breakAt) > 0 {
		r.left, s.breakAt = s.breakAt[0], s.breakAt[1:]
	}
	return r
}

type serverStream struct {
	s    *server
	ctx  context.Context
	r    io.Reader
	left int
}

func (r *serverStream) Read(p []byte) (int, error) {
	if r.s.block != nil {
		select {
		case r.s.blocked <- struct{}{}:
		default: // told often enough
		}
		select {
		case <-r.s.block:
		case <-r.ctx.Done():
			return 0, r.ctx.Err()
		}
	}
	switch {
	case r.left == 0:
		return 0, cmp.Or(r.s.breakErr, errors.New("connection reset"))
	case r.left > 0:
		p = p[:min(len(p), r.left)]
	}
	n, err := r.r.Read(p[:min(len(p), 1000)])
	if r.left > 0 {
		r.left -= n
	}
	return n, err
}

func (r *serverStream) Close() error { return nil }

// resumable can begin in the middle.
type resumable struct {
	*server
	offsets []int64
}

func (s *resumable) FetchAt(ctx context.Context, _ layers.RemoteBlob, offset int64) (io.ReadCloser, error) {
	s.offsets = append(s.offsets, offset)
	return s.stream(ctx, offset), nil
}

func gzipped(tb testing.TB, data []byte) []byte {
	tb.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(data); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes()
}

func zstded(tb testing.TB, data []byte) []byte {
	tb.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		tb.Fatal(err)
	}
	return w.EncodeAll(data, nil)
}

// lines keeps the last state of every line of progress.
type lines struct {
	mu    sync.Mutex
	last  map[string]progress.Status
	names map[string]bool
}

func (l *lines) Status(s progress.Status) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil {
		l.last, l.names = map[string]progress.Status{}, map[string]bool{}
	}
	l.last[s.ID] = s
	l.names[s.Name] = true
}

func (l *lines) Log(int, []byte)       {}
func (l *lines) Warn(progress.Warning) {}

func (s *signalled) Status(st progress.Status) {
	s.lines.Status(st)
	s.once.Do(func() { close(s.started) })
}
