package manifest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Provider gives the blob to whoever uploads it. Its readers belong to one goroutine each, and read from the beginning again as often
// as an upload begins anew.
func (b Blob) Provider() content.Provider { return provider{b} }

type provider struct{ b Blob }

func (p provider) ReaderAt(ctx context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	if p.b.Open == nil {
		return memory{bytes.NewReader(p.b.Data)}, nil
	}
	return &stream{ctx: ctx, open: p.b.Open, size: d.Size}, nil
}

type memory struct{ *bytes.Reader }

func (memory) Close() error { return nil }

// stream is a blob that can only be read in order, as one that is read where it says. It is opened when it is first read and
// again when something else is read than what comes next, as happens when an upload begins anew. It belongs to one goroutine.
type stream struct {
	ctx  context.Context // of the upload
	open func(context.Context) (io.ReadCloser, error)
	size int64

	r  io.ReadCloser // nil if it is not open
	at int64         // of r
}

func (s *stream) Size() int64 { return s.size }

func (s *stream) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	if off >= s.size {
		return 0, io.EOF
	}
	if err := s.seek(off); err != nil {
		return 0, err
	}
	n, err := io.ReadFull(s.r, p[:min(int64(len(p)), s.size-off)])
	s.at += int64(n)
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return n, fmt.Errorf("content ends after %d of %d bytes: %w", s.at, s.size, io.ErrUnexpectedEOF)
	case err == nil && n < len(p):
		err = io.EOF
	}
	return n, err
}

func (s *stream) seek(off int64) (err error) {
	if s.r != nil && s.at != off {
		if err := s.Close(); err != nil {
			return err
		}
	}
	if s.r != nil {
		return nil
	}
	if s.r, err = s.open(s.ctx); err != nil {
		return err
	}
	s.at, err = io.CopyN(io.Discard, s.r, off)
	return err
}

// Close closes what is open.
func (s *stream) Close() error {
	if s.r == nil {
		return nil
	}
	r := s.r
	s.r, s.at = nil, 0
	return r.Close()
}
