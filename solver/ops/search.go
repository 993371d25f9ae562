package ops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/slipwaybuild/slipway/solver/guard"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/decompress"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"github.com/slipwaybuild/slipway/solver/progress"
)

const (
	searchBuffer = 256 << 10
	// maxUnpacked and maxUnpackedFile bound what is decompressed to look into, in bytes of one layer and of one file.
	maxUnpacked     = 128 << 20
	maxUnpackedFile = 32 << 20
	// maxSearched bounds how many layers are remembered to hold nothing.
	maxSearched = 16 << 10
)

// searched remembers in which layers nothing was found. The zero value is ready.
type searched struct {
	mu   sync.Mutex
	list map[searchKey]struct{}
}

type searchKey struct {
	layer  layers.ID
	values [32]byte
}

func (s *searched) has(k searchKey) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.list[k]
	return ok
}

func (s *searched) add(k searchKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.list == nil || len(s.list) >= maxSearched {
		s.list = map[searchKey]struct{}{}
	}
	s.list[k] = struct{}{}
}

// SearchLayer looks for values in layer i of ref: in names, contents, targets of symlinks and extended attributes. The layer must be
// local. It returns nil if there are none but those that may pass.
func (f *Factory) SearchLayer(ctx context.Context, ref *layers.Ref, i int, m *guard.Matcher, leaks *Leaks) (*LeakError, error) {
	if !m.Searches(leaks.Allows) {
		return nil, nil
	}
	key := searchKey{layer: ref.IDs()[i], values: m.Fingerprint()}
	if f.searched.has(key) {
		return nil, nil
	}
	tree, err := f.store.LayerTree(ctx, ref, i)
	if err != nil {
		return nil, fmt.Errorf("search for secrets: %w", err)
	}
	s := &layerSearch{m: m, leaks: leaks, tree: tree, finder: m.NewFinder(leaks.Allows), buf: make([]byte, searchBuffer), unpack: maxUnpacked}
	leak, err := s.run(ctx)
	if err != nil {
		return nil, fmt.Errorf("search for secrets: %w", err)
	}
	if leak == nil {
		f.searched.add(key)
	}
	return leak, nil
}

// layerSearch is one search of one layer.
type layerSearch struct {
	m      *guard.Matcher
	leaks  *Leaks
	tree   fstree.Tree
	finder *guard.Finder
	buf    []byte
	unpack int64 // what may still be decompressed
}

func (s *layerSearch) run(ctx context.Context) (*LeakError, error) {
	for source := fstree.NewSource(s.tree); ; {
		e, open, err := source.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		id, what := s.entry(&e)
		if id == "" && open != nil && e.Size >= guard.MinFind {
			what = "the content of"
			if id, err = s.content(ctx, open); err != nil {
				return nil, fmt.Errorf("/%s: %w", e.Path, err)
			}
		}
		if id != "" {
			return &LeakError{ID: id, Where: what + " /" + s.m.MaskString(e.Path)}, nil
		}
	}
}

// entry looks at all of an entry but its content.
func (s *layerSearch) entry(e *fstree.Entry) (id, what string) {
	find := func(text string) string {
		if len(text) < guard.MinFind {
			return ""
		}
		return s.m.Find([]byte(text), s.leaks.Allows)
	}
	if e.Whiteout {
		return "", ""
	}
	if id = find(e.Name()); id != "" {
		return id, "the name of"
	}
	if id = find(e.Linkname); id != "" {
		return id, "the target of the link"
	}
	for k, v := range e.Xattrs {
		if id = find(k); id == "" {
			id = find(v)
		}
		if id != "" {
			return id, "an extended attribute of"
		}
	}
	return "", ""
}

func (s *layerSearch) content(ctx context.Context, open func(context.Context) (io.ReadCloser, error)) (id string, err error) {
	r, err := open(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	s.finder.Reset()
	n, err := io.ReadFull(r, s.buf)
	for packed := compressed(s.buf[:n]); ; {
		_, _ = s.finder.Write(s.buf[:n])
		if id := s.finder.Found(); id != "" {
			return id, nil
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return "", err
			}
			if packed {
				return s.unpacked(ctx, open)
			}
			return "", nil
		}
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		n, err = io.ReadFull(r, s.buf)
	}
}

// compressed tells whether a file is worth unpacking, by its head. Slower compressions are left out.
func compressed(head []byte) bool {
	return bytes.HasPrefix(head, []byte{0x1f, 0x8b, 8}) || bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd})
}

// unpacked looks into a compressed file, as far as the bounds allow. What turns out to be none holds nothing that could be read.
func (s *layerSearch) unpacked(ctx context.Context, open func(context.Context) (io.ReadCloser, error)) (id string, err error) {
	if s.unpack <= 0 {
		return "", nil
	}
	r, err := open(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	d, err := decompress.NewReader(r)
	if err != nil {
		return "", nil
	}
	defer func() { _ = d.Close() }() // only read from
	s.finder.Reset()
	for left := min(s.unpack, maxUnpackedFile); left > 0 && ctx.Err() == nil; {
		n, err := io.ReadFull(d, s.buf[:min(left, searchBuffer)])
		left, s.unpack = left-int64(n), s.unpack-int64(n)
		_, _ = s.finder.Write(s.buf[:n])
		if id := s.finder.Found(); id != "" || err != nil {
			return id, nil
		}
	}
	return "", ctx.Err()
}

// guardLayer searches the top layer of ref, which the step with that name made, and says what the step fails with, if it does.
func (f *Factory) guardLayer(ctx context.Context, ref *layers.Ref, m *guard.Matcher, g guarded) error {
	if ref == nil || m == nil {
		return nil
	}
	n := len(ref.IDs())
	if n == 0 {
		return nil
	}
	leak, err := f.SearchLayer(ctx, ref, n-1, m, g.leaks)
	if leak == nil || err != nil {
		return err
	}
	leak.Step = m.MaskString(g.step)
	return g.leaks.Refuse(leak, g.progress)
}

// discard gives back layers in which a secret was found, and removes them: nothing of them stays where a later build could come by it.
func (f *Factory) discard(ctx context.Context, refs ...*layers.Ref) {
	ids := map[string]bool{}
	for _, r := range refs {
		if r == nil {
			continue
		}
		if list := r.IDs(); len(list) > 0 {
			ids[string(list[len(list)-1])] = true
		}
	}
	f.release(refs...)
	err := f.store.Prune(context.WithoutCancel(ctx), layers.PruneOptions{All: true, Filter: func(u layers.Usage) bool { return ids[u.ID] }}, nil)
	if err != nil {
		f.log.Error("remove layers that hold a secret", "err", err)
	}
}

// guarded says whose layers are searched.
type guarded struct {
	leaks    *Leaks
	step     string
	progress progress.Writer
}
