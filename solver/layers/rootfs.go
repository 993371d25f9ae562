package layers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/slipwaybuild/slipway/solver/layers/compose"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"golang.org/x/sys/unix"
)

// Rootfs is a mounted stack.
type Rootfs struct {
	s     *Store
	ref   *Ref
	upper *Upper // nil if read-only
	base  string // holds the mount point
	path  string
	site  callSite

	closers []func() error // of what the mount is made of
	mounted bool
	over    bool // guarded by s.mu
}

// Compose mounts r, writable into up, or read-only if up is nil. The mount holds the layers itself. r must be local, and what is lent fetched
// ([ErrNotLocal]) and have at most some 500 layers ([StackTooDeepError]). up can be mounted once at a time: [ErrInUse].
func (s *Store) Compose(ctx context.Context, r *Ref, up *Upper) (*Rootfs, error) {
	done, err := s.begin()
	if err != nil {
		return nil, fmt.Errorf("mount layers: %w", err)
	}
	defer done()
	m, err := s.newRootfs(r, up)
	if err != nil {
		return nil, fmt.Errorf("mount layers: %w", err)
	}
	if err := m.mount(ctx); err != nil {
		return nil, fmt.Errorf("mount layers: %w", errors.Join(err, m.Close()))
	}
	return m, nil
}

// newRootfs takes hold of all a mount needs.
func (s *Store) newRootfs(r *Ref, up *Upper) (*Rootfs, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.live(r); err != nil {
		return nil, err
	}
	for _, l := range r.layers {
		if !l.local() || l.Kind == Lent && l.source() == nil {
			return nil, fmt.Errorf("layer %s: %w", l.ID, ErrNotLocal)
		}
	}
	if up != nil {
		switch {
		case up.over:
			return nil, fmt.Errorf("upper: %w", ErrReleased)
		case up.inUse:
			return nil, fmt.Errorf("upper %s is mounted: %w", up.name, ErrInUse)
		}
		up.inUse = true
	}
	base := filepath.Join(s.at.mounts(), newName())
	m := &Rootfs{s: s, ref: s.hold(r.layers, 2), upper: up, base: base, path: filepath.Join(base, "root"), site: here(2)}
	s.rootfs[m] = struct{}{}
	return m, nil
}

// Path is where it is mounted.
func (m *Rootfs) Path() string { return m.path }

// Close unmounts it. If something still uses the mount it is taken out of the tree all the same and ends with its last user. A
// second call returns an error that is [ErrReleased].
func (m *Rootfs) Close() error {
	s := m.s
	s.mu.Lock()
	if m.over {
		s.mu.Unlock()
		return fmt.Errorf("unmount layers: %w", ErrReleased)
	}
	m.over = true
	s.mu.Unlock()
	err := m.unmount()
	// The upper goes on holding what it was written over: sealing it looks there.
	free := m.ref
	s.mu.Lock()
	delete(s.rootfs, m)
	if m.upper != nil {
		m.upper.inUse = false
		free, m.upper.lower = m.upper.lower, m.ref
	}
	s.mu.Unlock()
	if free != nil {
		err = errors.Join(err, free.Release())
	}
	return err
}

func (m *Rootfs) unmount() error {
	var errs []error
	if m.mounted {
		busy, err := compose.Unmount(m.path)
		if busy {
			m.s.log.Warn("root file system was still in use when it was unmounted", "path", m.path)
		}
		errs = append(errs, err)
	}
	for _, c := range slices.Backward(m.closers) {
		errs = append(errs, c())
	}
	if err := errors.Join(errs...); err != nil {
		return err // what may still be mounted must not be deleted
	}
	return m.s.trash.add(m.base, 0)
}

// endMounts ends mounts that were not given back. It is part of closing.
func (s *Store) endMounts() error {
	s.mu.Lock()
	var left []*Rootfs
	for m := range s.rootfs {
		left = append(left, m)
	}
	s.mu.Unlock()
	var errs []error
	for _, m := range left {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

func (m *Rootfs) mount(ctx context.Context) error {
	stack := m.s.effective(m.ref)
	// One more for the lower of our own, one for what mends the chain.
	if most := compose.MaxLowers - 2; len(stack) > most {
		return &StackTooDeepError{Layers: len(stack), Max: most}
	}
	if err := os.Mkdir(m.base, 0o711); err != nil {
		return err
	}
	if err := os.Mkdir(m.path, 0o755); err != nil {
		return err
	}
	root, err := m.rootEntry(ctx)
	if err != nil {
		return err
	}
	o := compose.Overlay{Index: m.s.caps.Index, Legacy: m.s.caps.Legacy, Userxattr: m.s.caps.Userxattr}
	if o.Lowers, err = m.lowers(ctx, stack); err != nil {
		return err
	}
	if m.upper == nil {
		own, err := m.ownLower("top", &root)
		if err != nil {
			return err
		}
		o.Lowers = slices.Insert(o.Lowers, 0, own)
	} else if err := m.readyUpper(root, &o); err != nil {
		return err
	}
	// An overlay wants one lower at least, and two without an upper.
	for len(o.Lowers) == 0 || m.upper == nil && len(o.Lowers) < 2 {
		own, err := m.ownLower("bottom", nil)
		if err != nil {
			return err
		}
		o.Lowers = append(o.Lowers, own)
	}
	err = o.Mount(m.path)
	if errors.Is(err, unix.ESTALE) && o.Index {
		// The upper was mounted over other layers before, which an index does not forgive.
		o.Index = false
		err = o.Mount(m.path)
	}
	m.mounted = err == nil
	return err
}

// rootEntry is the root directory of the merged view. Overlayfs would show that of the topmost lower.
func (m *Rootfs) rootEntry(ctx context.Context) (fstree.Entry, error) {
	tree, err := m.s.Tree(ctx, m.ref)
	if err != nil {
		return fstree.Entry{}, err
	}
	return tree.Stat(ctx, "")
}

// ownLower makes a directory of the mount's own to be a lower.
func (m *Rootfs) ownLower(name string, root *fstree.Entry) (int, error) {
	path := filepath.Join(m.base, name)
	if err := os.Mkdir(path, 0o755); err != nil {
		return -1, err
	}
	if root != nil {
		if err := setAttributes(path, *root); err != nil {
			return -1, err
		}
	}
	fd, err := compose.OpenDir(path)
	if err != nil {
		return -1, err
	}
	m.closers = append(m.closers, func() error { return unix.Close(fd) })
	return fd, nil
}

// readyUpper gives the upper the root directory that the step should find, the first time it is mounted.
func (m *Rootfs) readyUpper(root fstree.Entry, o *compose.Overlay) error {
	u := m.upper
	o.Upper, o.Work, o.Volatile = u.fs(), u.work(), m.s.caps.Volatile
	// Overlayfs marks a volatile work directory and refuses it from then on, lest power failed meanwhile. It did not: this is
	// the process that made it.
	if err := os.RemoveAll(filepath.Join(u.work(), "work", "incompat")); err != nil {
		return err
	}
	names, err := os.ReadDir(u.fs())
	if err != nil || len(names) > 0 {
		return err
	}
	if err := setAttributes(u.fs(), root); err != nil {
		return err
	}
	now, err := dirEntry(u.fs())
	if err != nil {
		return err
	}
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	u.root = attrsOf(now)
	return nil
}
