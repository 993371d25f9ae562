package layers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/slipwaybuild/slipway/solver/layers/blob"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// Upper is a layer in the making: the writable directory of a step. It is written to through a [Rootfs].
type Upper struct {
	s    *Store
	name string
	site callSite

	// The rest is guarded by s.mu.
	over  bool      // sealed or discarded
	inUse bool      // mounted
	root  rootAttrs // of the root directory as the step found it
	lower *Ref      // what it was last mounted over, held until it is used up; nil before
}

// rootAttrs are the attributes of a root directory. An upper has one of its own from the start, so that it is there says
// nothing; only what a step changed about it does.
type rootAttrs struct {
	Mode   uint32            `json:"mode"`
	UID    uint32            `json:"uid,omitempty"`
	GID    uint32            `json:"gid,omitempty"`
	Xattrs map[string]string `json:"xattrs,omitempty"`
}

func attrsOf(e fstree.Entry) rootAttrs {
	return rootAttrs{Mode: e.Mode, UID: e.UID, GID: e.GID, Xattrs: e.Xattrs}
}

func (a rootAttrs) equal(b rootAttrs) bool {
	return a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID && maps.Equal(a.Xattrs, b.Xattrs)
}

func (u *Upper) dir() string  { return filepath.Join(u.s.at.uppers(), u.name) }
func (u *Upper) fs() string   { return filepath.Join(u.dir(), "fs") }
func (u *Upper) work() string { return filepath.Join(u.dir(), "work") }

// NewUpper makes an empty upper. It ends with Seal or Discard.
func (s *Store) NewUpper(ctx context.Context) (*Upper, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	u := &Upper{s: s, name: newName(), site: here(1), root: rootAttrs{Mode: syscall.S_IFDIR | 0o755}}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("make upper: %w", ErrClosed)
	}
	for _, d := range []string{u.dir(), u.fs(), u.work()} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return nil, fmt.Errorf("make upper: %w", err)
		}
	}
	if err := os.Chmod(u.fs(), 0o755); err != nil { // whatever the umask
		return nil, fmt.Errorf("make upper: %w", err)
	}
	s.uppers[u] = struct{}{}
	return u, nil
}

// finish lets an upper be used up once.
func (s *Store) finish(u *Upper) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case u.over:
		return ErrReleased
	case u.inUse:
		return fmt.Errorf("upper %s is mounted: %w", u.name, ErrInUse)
	}
	u.over = true
	delete(s.uppers, u)
	return nil
}

// letGo gives back what an upper that is used up was mounted over.
func (u *Upper) letGo() error {
	if u.lower == nil {
		return nil
	}
	return u.lower.Release()
}

// Discard removes the upper. It must not be mounted: [ErrInUse]. A second call returns an error that is [ErrReleased].
func (u *Upper) Discard() error {
	if err := u.s.finish(u); err != nil {
		return fmt.Errorf("discard upper: %w", err)
	}
	return errors.Join(u.letGo(), u.s.trash.add(u.dir(), 0))
}

// Seal turns an upper into a directory layer. The upper is used up, also on error; except that one still mounted is refused
// with [ErrInUse] and left alone. An upper in which nothing was changed gives a layer without entries.
func (s *Store) Seal(ctx context.Context, u *Upper, o ImportOptions) (*Ref, error) {
	done, err := s.begin()
	if err != nil {
		return nil, fmt.Errorf("seal upper: %w", err)
	}
	defer done()
	if err := s.finish(u); err != nil {
		return nil, fmt.Errorf("seal upper: %w", err)
	}
	r, err := s.seal(ctx, u, o)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("seal upper: %w", err), u.letGo(), s.trash.add(u.dir(), 0))
	}
	if err := u.letGo(); err != nil {
		s.log.Warn("release layers below a sealed upper", "error", err)
	}
	return r, nil
}

func (s *Store) seal(ctx context.Context, u *Upper, o ImportOptions) (*Ref, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	found, err := survey(u.fs())
	if err != nil {
		return nil, err
	}
	changed, err := s.clearOpaque(ctx, u, found.dirs)
	if err == nil && changed {
		found, err = survey(u.fs())
	}
	if err != nil {
		return nil, err
	}
	root, err := blob.DirTree(u.fs()).Stat(ctx, "")
	if err != nil {
		return nil, err
	}
	l := &layer{record: record{ID: ID(dirPrefix + newName()), Kind: Directory, Labels: o.Labels, Parents: o.Parents, Boot: s.boot}}
	if attrs := attrsOf(root); attrs.equal(u.root) {
		l.Root = &attrs
		l.Empty = found.names == 0
	}
	if !l.Empty {
		l.HasDir, l.DirSize = true, found.size
		l.odd, l.Odd = &found.odd, len(found.odd.whiteouts) > 0
	}
	res := s.newReservation()
	defer res.end()
	// The step has written already; the ceiling is kept by refusing to keep it.
	if err := res.grow(ctx, l.DirSize); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	if l.HasDir {
		if err := os.Rename(u.fs(), s.at.dir(l.ID)); err != nil {
			return nil, err
		}
	}
	if err := s.trash.add(u.dir(), 0); err != nil {
		s.log.Warn("cannot remove sealed upper", "error", err)
	}
	l.Created = s.now()
	l.LastUsed = l.Created
	s.layers[l.ID] = l
	s.used += l.DirSize
	s.unsynced[l] = struct{}{}
	s.save(l, true)
	return s.hold([]*layer{l}, 2), nil
}

// findings is what looking once through a sealed directory tells.
type findings struct {
	names int      // below the root
	size  int64    // on disk
	dirs  []string // below the root, relative to it
	odd   oddities
}

// survey looks through an upper directory.
func survey(root string) (findings, error) {
	var f findings
	whiteouts := map[string]bool{}
	err := scanTree(root, func(path string, info fs.FileInfo, again bool) error {
		if path != root {
			f.names++
			if info.IsDir() {
				dir, err := filepath.Rel(root, path)
				if err != nil {
					return err
				}
				f.dirs = append(f.dirs, filepath.ToSlash(dir))
			}
		}
		if !again {
			f.size += allocated(info)
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && info.Mode()&fs.ModeCharDevice != 0 && st.Rdev == 0 {
			dir, err := filepath.Rel(root, filepath.Dir(path))
			if err != nil {
				return err
			}
			whiteouts[filepath.ToSlash(dir)] = true
		}
		return nil
	})
	delete(whiteouts, ".") // a root is always merged with another
	f.odd.whiteouts = slices.Collect(maps.Keys(whiteouts))
	return f, err
}
