package layers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/layers/blob"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// openBlob is a blob file open for reading in user space.
type openBlob struct {
	file *os.File
	blob *blob.Blob
	tree fstree.Tree
}

func (s *Store) openView(d digest.Digest) (*openBlob, error) {
	f, err := os.Open(s.at.blob(d))
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	b, err := blob.Open(f, info.Size())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open blob %s: %w", d, err), f.Close())
	}
	return &openBlob{file: f, blob: b, tree: b.Tree()}, nil
}

func closeView(o *openBlob) error { return o.file.Close() }

// Tree is the merged view of a stack, without any mount. It is valid while r is held. [ErrNotLocal] if a layer is remote.
func (s *Store) Tree(ctx context.Context, r *Ref) (fstree.Tree, error) {
	s.mu.Lock()
	if err := s.live(r); err != nil {
		s.mu.Unlock()
		return nil, fmt.Errorf("read layers: %w", err)
	}
	merged := r.merged
	s.mu.Unlock()
	if merged != nil {
		return merged, nil
	}
	trees := make([]fstree.Tree, len(r.layers))
	for i := range r.layers {
		t, err := s.LayerTree(ctx, r, i)
		if err != nil {
			return nil, err
		}
		trees[i] = t
	}
	merged = fstree.View(trees...)
	s.mu.Lock()
	defer s.mu.Unlock()
	r.merged = merged
	return merged, nil
}

// LayerTree is the view of layer i of r alone, with its whiteouts. It is valid while r is held.
func (s *Store) LayerTree(ctx context.Context, r *Ref, i int) (fstree.Tree, error) {
	s.mu.Lock()
	if err := s.live(r); err != nil {
		s.mu.Unlock()
		return nil, fmt.Errorf("read layer: %w", err)
	}
	if i < 0 || i >= len(r.layers) {
		s.mu.Unlock()
		return nil, fmt.Errorf("read layer %d of %d: %w", i, len(r.layers), ErrNotFound)
	}
	l := r.layers[i]
	if t := r.trees[i]; t != nil {
		s.mu.Unlock()
		return t, nil
	}
	src, dir, local, root, lent := l.source(), l.HasDir, l.local(), l.Root, l.lent
	s.mu.Unlock()

	var t fstree.Tree
	release := func() error { return nil }
	switch {
	case !local:
		return nil, fmt.Errorf("read layer %s: %w", l.ID, ErrNotLocal)
	case lent != nil:
		t = lent
	case dir:
		t = s.dirTree(s.at.dir(l.ID))
		if root != nil {
			t = impliedRoot{t}
		}
	case src != nil:
		o, rel, err := s.views.acquire(ctx, src.DiffID)
		if err != nil {
			return nil, s.readError(l, err)
		}
		t, release = o.tree, rel
	default:
		t = fstree.Empty()
	}
	return s.keepTree(r, i, t, release)
}

// keepTree remembers a tree with the hold it lives by.
func (s *Store) keepTree(r *Ref, i int, t fstree.Tree, release func() error) (fstree.Tree, error) {
	s.mu.Lock()
	var err error
	if r.released {
		err = ErrReleased
	} else if other := r.trees[i]; other != nil {
		t = other
	} else {
		if r.trees == nil {
			r.trees = map[int]fstree.Tree{}
		}
		r.trees[i] = t
		r.closers = append(r.closers, release)
		release = nil
	}
	s.mu.Unlock()
	if release != nil {
		err = errors.Join(err, release())
	}
	if err != nil {
		return nil, fmt.Errorf("read layer: %w", err)
	}
	return t, nil
}

// readError says of bytes that vanished that they are not found, which callers take for a miss.
func (s *Store) readError(l *layer, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		s.loseBytes(l)
		err = ErrNotFound
	}
	return fmt.Errorf("read layer %s: %w", l.ID, err)
}

// impliedRoot is a sealed upper whose root directory says nothing.
type impliedRoot struct{ fstree.Tree }

func (t impliedRoot) Stat(ctx context.Context, path string) (fstree.Entry, error) {
	e, err := t.Tree.Stat(ctx, path)
	if path == "" {
		// Its time is that of sealing, which a packed layer does not have.
		e.Implied, e.ModTime = true, time.Unix(0, 0)
	}
	return e, err
}

// IsEmpty says whether layer i of r has no entries. [ErrNotLocal] if it is remote.
func (s *Store) IsEmpty(_ context.Context, r *Ref, i int) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.live(r); err != nil {
		return false, err
	}
	l := r.layers[i]
	if !l.local() {
		return false, fmt.Errorf("read layer %s: %w", l.ID, ErrNotLocal)
	}
	return l.Empty, nil
}

// Tar opens the exact uncompressed tar of layer i of r, which must be a blob or solidified ([ErrNotPacked], [ErrNotLocal]), and
// returns its size. It stays readable until it is closed, also when r is given back before.
func (s *Store) Tar(_ context.Context, r *Ref, i int) (io.ReadSeekCloser, int64, error) {
	s.mu.Lock()
	if err := s.live(r); err != nil {
		s.mu.Unlock()
		return nil, 0, fmt.Errorf("open layer tar: %w", err)
	}
	l := r.layers[i]
	src, local := l.source(), l.local()
	s.mu.Unlock()
	switch {
	case !local:
		return nil, 0, fmt.Errorf("open tar of layer %s: %w", l.ID, ErrNotLocal)
	case src == nil:
		return nil, 0, fmt.Errorf("open tar of layer %s: %w", l.ID, ErrNotPacked)
	}
	o, err := s.openView(src.DiffID)
	if err != nil {
		return nil, 0, s.readError(l, err)
	}
	tar := o.blob.Tar()
	return &tarFile{SectionReader: tar, file: o.file}, tar.Size(), nil
}

// tarFile is the part of a blob that is the tar.
type tarFile struct {
	*io.SectionReader
	file *os.File
}

func (t *tarFile) Close() error { return t.file.Close() }
