package layers

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/slipwaybuild/slipway/solver/layers/compose"
	"golang.org/x/sys/unix"
)

// lowers opens what a stack is mounted from, top first.
func (m *Rootfs) lowers(ctx context.Context, stack []*layer) ([]int, error) {
	c, err := m.s.mend(ctx, m.ref, stack)
	if err != nil {
		return nil, err
	}
	var fds []int
	if c != nil && c.path != "" {
		fd, err := m.openDir(c.path)
		if err != nil {
			return nil, err
		}
		fds = append(fds, fd)
	}
	for _, l := range slices.Backward(stack) {
		fd, err := m.lower(ctx, l)
		if err != nil {
			return nil, m.s.readError(l, err)
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

// lower opens one layer as this host realises it.
func (m *Rootfs) lower(ctx context.Context, l *layer) (int, error) {
	s := m.s
	s.mu.Lock()
	src, dir := l.source(), l.HasDir
	s.mu.Unlock()
	switch {
	case dir:
		return m.openDir(s.at.dir(l.ID))
	case src == nil:
		return -1, fmt.Errorf("layer %s has no bytes: %w", l.ID, ErrNotFound)
	case s.erofs:
		fd, release, err := s.mounts.acquire(ctx, src.DiffID)
		if err != nil {
			return -1, err
		}
		m.closers = append(m.closers, release)
		return fd, nil
	}
	path, err := s.unpack(ctx, src)
	if err != nil {
		return -1, err
	}
	return m.openDir(path)
}

func (m *Rootfs) openDir(path string) (int, error) {
	fd, err := compose.OpenDir(path)
	if err != nil {
		return -1, err
	}
	m.closers = append(m.closers, sync.OnceValue(func() error { return unix.Close(fd) }))
	return fd, nil
}

// effective is the stack without what makes no difference: layers without entries, and all but the topmost of a layer that
// occurs more than once, which overlayfs would refuse. All that a lower copy could show, the topmost shows over it.
func (s *Store) effective(r *Ref) []*layer {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := map[string]bool{}
	var stack []*layer
	for _, l := range slices.Backward(r.layers) {
		key := string(l.ID)
		if src := l.source(); src != nil && !l.HasDir {
			key = string(src.DiffID)
		}
		if l.Empty || seen[key] {
			continue
		}
		seen[key] = true
		stack = append(stack, l)
	}
	slices.Reverse(stack)
	return stack
}
