package fstree

import (
	"bytes"
	"context"
	"errors"
	"io"
)

var errTooLong = errors.New("file is too long")

// OpenFunc opens the content of a regular file. It can be called more than once and concurrently; each Content is closed once
// by whoever called.
type OpenFunc func(ctx context.Context) (Content, error)

// Bytes opens b, which must not change any more. It is for small files.
func Bytes(b []byte) OpenFunc {
	return func(context.Context) (Content, error) { return memContent{bytes.NewReader(b)}, nil }
}

// FromTree opens the regular file at path in t.
func FromTree(t Tree, path string) OpenFunc {
	return func(ctx context.Context) (Content, error) { return t.Open(ctx, path) }
}

// NewReader reads c from its beginning to its end. Closing the reader closes c.
func NewReader(c Content) io.ReadCloser {
	return &contentReader{SectionReader: io.NewSectionReader(c, 0, c.Size()), c: c}
}

// ReadFile returns the content of the regular file at path, which must not be longer than limit bytes.
func ReadFile(ctx context.Context, t Tree, path string, limit int64) ([]byte, error) {
	c, err := t.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }() // only read from
	if c.Size() > limit {
		return nil, pathError("read", path, errTooLong)
	}
	b := make([]byte, c.Size())
	if _, err := io.ReadFull(io.NewSectionReader(c, 0, c.Size()), b); err != nil {
		return nil, pathError("read", path, err)
	}
	return b, nil
}

type memContent struct{ *bytes.Reader }

func (memContent) Close() error { return nil }

type contentReader struct {
	*io.SectionReader
	c Content
}

func (r *contentReader) Close() error { return r.c.Close() }

// sourceOpen makes of o what a [Source] hands out.
func sourceOpen(o OpenFunc) func(context.Context) (io.ReadCloser, error) {
	return func(ctx context.Context) (io.ReadCloser, error) {
		c, err := o(ctx)
		if err != nil {
			return nil, err
		}
		return NewReader(c), nil
	}
}
