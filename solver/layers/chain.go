package layers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"golang.org/x/sys/unix"
)

// oddities are the directories of a layer that overlayfs may show wrongly, depending on what the layer is stacked with.
type oddities struct {
	implied   []string // made up, because only things inside them were named
	whiteouts []string // having whiteouts in them
}

// A chain mends what overlayfs shows wrongly of one stack. It takes mode, owner and time of a directory from the topmost layer
// that has it, even if that one only made it up; and it lists the whiteouts of a directory that only one layer has. Both end
// when one more layer has the directory, with the attributes of the merged view. That layer means nothing in other stacks, so
// it is made for each, once, and goes with the layers it was made for.
type chain struct {
	key    string
	path   string // "" if nothing needs mending
	size   int64
	layers []*layer
}

func chainKey(stack []*layer) string {
	h := sha256.New()
	for _, l := range stack {
		fmt.Fprintf(h, "%d:%s", len(l.ID), l.ID)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// mend returns the chain of a stack that r holds; nil if none of its layers is odd.
func (s *Store) mend(ctx context.Context, r *Ref, stack []*layer) (*chain, error) {
	s.mu.Lock()
	odd := slices.ContainsFunc(stack, func(l *layer) bool { return l.Odd })
	s.mu.Unlock()
	if !odd || len(stack) < 1 {
		return nil, nil
	}
	key := chainKey(stack)
	unlock, err := s.mending.Lock(ctx, key)
	if err != nil {
		return nil, err
	}
	defer unlock()
	s.mu.Lock()
	c := s.chains[key]
	s.mu.Unlock()
	if c != nil {
		return c, nil
	}
	c = &chain{key: key, layers: stack}
	if err := s.makeChain(ctx, r, c); err != nil {
		return nil, fmt.Errorf("mend directories of the stack: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.chains[key] = c
	s.used += c.size
	for _, l := range stack {
		if l.chains == nil {
			l.chains = map[string]*chain{}
		}
		l.chains[key] = c
	}
	return c, nil
}

// dropChain is called under mu.
func (s *Store) dropChain(c *chain) {
	if s.chains[c.key] != c {
		return
	}
	delete(s.chains, c.key)
	for _, l := range c.layers {
		delete(l.chains, c.key)
	}
	s.used -= c.size
	if c.path == "" {
		return
	}
	if err := s.trash.add(c.path, c.size); err != nil {
		s.log.Warn("cannot remove mended directories", "error", err)
	}
}

func (s *Store) makeChain(ctx context.Context, r *Ref, c *chain) error {
	merged, err := s.Tree(ctx, r)
	if err != nil {
		return err
	}
	m := mender{merged: merged}
	for _, l := range c.layers {
		t, err := s.LayerTree(ctx, r, slices.Index(r.layers, l))
		if err != nil {
			return err
		}
		o, err := s.odditiesOf(ctx, l, t)
		if err != nil {
			return err
		}
		m.layers = append(m.layers, t)
		m.odd = append(m.odd, o)
	}
	dirs, err := m.wrong(ctx)
	if err != nil || len(dirs) == 0 {
		return err
	}
	tmp := filepath.Join(s.at.tmp(), newName())
	if err := m.write(ctx, tmp, dirs); err != nil {
		return errors.Join(err, s.trash.add(tmp, 0))
	}
	if c.size, err = diskUsage(tmp); err != nil {
		return errors.Join(err, s.trash.add(tmp, 0))
	}
	c.path = filepath.Join(s.at.chains(), newName())
	return os.Rename(tmp, c.path)
}

// odditiesOf looks through a layer, once.
func (s *Store) odditiesOf(ctx context.Context, l *layer, t fstree.Tree) (*oddities, error) {
	s.mu.Lock()
	o, odd := l.odd, l.Odd
	s.mu.Unlock()
	if o != nil {
		return o, nil
	}
	o = &oddities{}
	if odd {
		err := fstree.Walk(ctx, t, "", func(e fstree.Entry) error {
			parent := dirOf(e.Path)
			switch {
			case e.Path == "":
			case e.Implied:
				o.implied = append(o.implied, e.Path)
			case e.Whiteout && parent != "" && (len(o.whiteouts) == 0 || o.whiteouts[len(o.whiteouts)-1] != parent):
				o.whiteouts = append(o.whiteouts, parent)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l.odd = o
	return o, nil
}

func dirOf(p string) string {
	if d := path.Dir(p); d != "." {
		return d
	}
	return ""
}

// mender works out which directories overlayfs shows wrongly.
type mender struct {
	merged fstree.Tree
	layers []fstree.Tree // bottom first
	odd    []*oddities
}

// wrong lists the directories to mend and all above them, parents first.
func (m *mender) wrong(ctx context.Context) ([]string, error) {
	need := map[string]bool{}
	checked := map[string]bool{}
	for i, o := range m.odd {
		for _, d := range o.implied {
			if checked[d] {
				continue
			}
			checked[d] = true
			if yes, err := m.hidesAttributes(ctx, d); err != nil {
				return nil, err
			} else if yes {
				need[d] = true
			}
		}
		for _, d := range o.whiteouts {
			if yes, err := m.showsWhiteouts(ctx, d, i); err != nil {
				return nil, err
			} else if yes {
				need[d] = true
			}
		}
	}
	all := map[string]bool{}
	for d := range need {
		for ; d != ""; d = dirOf(d) {
			all[d] = true
		}
	}
	sorted := make([]string, 0, len(all))
	for d := range all {
		sorted = append(sorted, d)
	}
	slices.Sort(sorted) // a parent is a prefix of its children, so it comes first
	return sorted, nil
}

// providers calls fn for the layers whose directory d takes part in the merged one, topmost first, until it returns false.
func (m *mender) providers(ctx context.Context, d string, fn func(i int, e fstree.Entry) bool) error {
	for i, t := range slices.Backward(m.layers) {
		e, ends, err := lookDown(ctx, t, d)
		if err != nil {
			return err
		}
		if e != nil && !fn(i, *e) || ends {
			return nil
		}
	}
	return nil
}

// lookDown looks for a directory in one layer, and says whether the layer hides what those below it have there.
func lookDown(ctx context.Context, t fstree.Tree, d string) (dir *fstree.Entry, ends bool, err error) {
	for i := 0; i <= len(d); i++ {
		if i < len(d) && d[i] != '/' {
			continue
		}
		e, err := t.Stat(ctx, d[:i])
		if errors.Is(err, fs.ErrNotExist) {
			return nil, ends, nil
		}
		if err != nil {
			return nil, false, err
		}
		if e.Whiteout || e.Mode&unix.S_IFMT != unix.S_IFDIR {
			return nil, true, nil
		}
		ends = ends || e.Opaque
		dir = &e
	}
	return dir, ends, nil
}

// hidesAttributes says whether the topmost layer that has d made it up, while one below knows it.
func (m *mender) hidesAttributes(ctx context.Context, d string) (bool, error) {
	top, known := true, false
	err := m.providers(ctx, d, func(_ int, e fstree.Entry) bool {
		if top && !e.Implied {
			return false
		}
		top = false
		known = known || !e.Implied
		return !known
	})
	return known, err
}

// showsWhiteouts says whether d is taken from layer i alone.
func (m *mender) showsWhiteouts(ctx context.Context, d string, i int) (bool, error) {
	var from []int
	err := m.providers(ctx, d, func(i int, _ fstree.Entry) bool {
		from = append(from, i)
		return len(from) < 2
	})
	return len(from) == 1 && from[0] == i, err
}

// write makes a directory that holds dirs, with the attributes of the merged view.
func (m *mender) write(ctx context.Context, root string, dirs []string) error {
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	entries := make([]fstree.Entry, 0, len(dirs))
	for _, d := range dirs {
		e, err := m.merged.Stat(ctx, d)
		if errors.Is(err, fs.ErrNotExist) || err == nil && e.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue // hidden by a layer above
		}
		if err != nil {
			return err
		}
		// The parents were made by us a moment ago, so no link can lead out of root.
		if err := os.Mkdir(filepath.Join(root, filepath.FromSlash(d)), 0o755); err != nil {
			return err
		}
		entries = append(entries, e)
	}
	for _, e := range slices.Backward(entries) { // a directory's time after what is made in it
		if err := setAttributes(filepath.Join(root, filepath.FromSlash(strings.TrimPrefix(e.Path, "/"))), e); err != nil {
			return err
		}
	}
	return nil
}
