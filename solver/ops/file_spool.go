package ops

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/slipwaybuild/slipway/solver/layers/decompress"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// spool holds what had to be decompressed before it could be read from the middle: a file without a name, gone with the last
// hold on it whatever happens. It belongs to one run and is not safe for concurrent writing.
type spool struct {
	dir  string
	f    *os.File
	size int64
}

func newSpool(dir string) *spool { return &spool{dir: dir} }

func (s *spool) close() error {
	if s.f == nil {
		return nil
	}
	f := s.f
	s.f = nil
	return f.Close()
}

// decompress writes all of an archive out. What is returned reads it, and pieces of it, until the spool is closed.
func (s *spool) decompress(ctx context.Context, c fstree.Content) (io.ReadSeeker, func(off, n int64) fstree.OpenFunc, error) {
	d, err := decompress.NewReader(io.NewSectionReader(c, 0, c.Size()))
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = d.Close() }() // only read from
	start := s.size
	if err := s.append(ctx, d); err != nil {
		return nil, nil, err
	}
	open := func(off, n int64) fstree.OpenFunc { return s.piece(start+off, n) }
	return io.NewSectionReader(s.f, start, s.size-start), open, nil
}

// write writes one file out.
func (s *spool) write(ctx context.Context, r io.Reader) (fstree.OpenFunc, error) {
	start := s.size
	if err := s.append(ctx, r); err != nil {
		return nil, err
	}
	return s.piece(start, s.size-start), nil
}

func (s *spool) append(ctx context.Context, r io.Reader) error {
	if s.f == nil {
		f, err := os.CreateTemp(s.dir, "slipway-unpack-")
		if err != nil {
			return fmt.Errorf("unpack archive: %w", err)
		}
		if err := os.Remove(f.Name()); err != nil {
			return errors.Join(fmt.Errorf("unpack archive: %w", err), f.Close())
		}
		s.f = f
	}
	left := int64(maxArchive) - s.size
	n, err := io.Copy(io.NewOffsetWriter(s.f, s.size), io.LimitReader(ctxReader{ctx, r}, left+1))
	s.size += n
	if err != nil {
		return fmt.Errorf("unpack archive: %w", err)
	}
	if n > left {
		return fmt.Errorf("%w: more than %d bytes", ErrArchiveTooLarge, int64(maxArchive))
	}
	return nil
}

func (s *spool) piece(off, n int64) fstree.OpenFunc {
	f := s.f
	return func(context.Context) (fstree.Content, error) {
		return sectionContent{io.NewSectionReader(f, off, n), io.NopCloser(nil)}, nil
	}
}

// section opens a piece of what open opens.
func section(open fstree.OpenFunc, off, n int64) fstree.OpenFunc {
	return func(ctx context.Context) (fstree.Content, error) {
		c, err := open(ctx)
		if err != nil {
			return nil, err
		}
		return sectionContent{io.NewSectionReader(c, off, n), c}, nil
	}
}

type sectionContent struct {
	*io.SectionReader
	io.Closer
}

// ctxReader ends with its context.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r ctxReader) Read(p []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
