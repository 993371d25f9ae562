// Package onefile makes layers of a single file, which is what sources of single files give.
package onefile

import (
	"context"
	"io"
	"os"
	"time"

	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// File says how the file looks.
type File struct {
	// Name is the file's, without directories.
	Name string
	// Perm are the permission bits.
	Perm     uint32
	UID, GID uint32
	// Size in bytes, which Content has at least.
	Size    int64
	ModTime time.Time
	// Content is read from its beginning, and stays the caller's.
	Content *os.File
}

// Pack makes the layer and returns a hold on it.
func Pack(ctx context.Context, s *layers.Store, f File, labels layers.Labels) (*layers.Ref, error) {
	return s.Pack(ctx, &source{file: f}, layers.ImportOptions{Labels: labels})
}

// source is the [fstree.Source] of one file.
type source struct {
	file  File
	given bool
}

func (s *source) Next(context.Context) (fstree.Entry, func(context.Context) (io.ReadCloser, error), error) {
	if s.given {
		return fstree.Entry{}, nil, io.EOF
	}
	s.given = true
	f := s.file
	e := fstree.Entry{Path: f.Name, Mode: fstree.ModeRegular | f.Perm, UID: f.UID, GID: f.GID, Size: f.Size, ModTime: f.ModTime}
	return e, func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(f.Content, 0, f.Size)), nil
	}, nil
}
