package layers

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// Ref is one owner's hold on a stack of layers, bottom first. Its methods are safe for concurrent use. While a Ref is held,
// none of its layers is collected.
type Ref struct {
	s      *Store
	layers []*layer
	site   callSite

	// The rest is guarded by s.mu.
	released bool
	trees    map[int]fstree.Tree
	merged   fstree.Tree
	closers  []func() error // of what the trees read from
}

// hold makes a Ref of layers that cannot go away meanwhile. It is called under mu.
func (s *Store) hold(layers []*layer, skip int) *Ref {
	r := &Ref{s: s, layers: layers, site: here(skip + 1)}
	for _, l := range layers {
		l.pins++
	}
	s.refs[r] = struct{}{}
	return r
}

// deadRef stands for a hold that was taken of something already given back. Whatever is done with it fails.
func (s *Store) deadRef() *Ref { return &Ref{s: s, released: true} }

// Layers describes the stack.
func (r *Ref) Layers() []Info {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	infos := make([]Info, len(r.layers))
	for i, l := range r.layers {
		infos[i] = l.info()
	}
	return infos
}

// IDs names the stack.
func (r *Ref) IDs() []ID { return idsOf(r.layers) }

func idsOf(layers []*layer) []ID {
	ids := make([]ID, len(layers))
	for i, l := range layers {
		ids[i] = l.ID // never changes
	}
	return ids
}

// Clone returns a further hold. A clone of a Ref that was given back holds nothing, and using it fails with [ErrReleased].
func (r *Ref) Clone() *Ref {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if r.released {
		return r.s.deadRef()
	}
	return r.s.hold(r.layers, 1)
}

// Release gives the hold back. A second call returns an error that is [ErrReleased] and changes nothing.
func (r *Ref) Release() error {
	s := r.s
	s.mu.Lock()
	if r.released {
		s.mu.Unlock()
		return fmt.Errorf("release layers: %w", ErrReleased)
	}
	r.released = true
	delete(s.refs, r)
	closers := r.closers
	for _, l := range r.layers {
		l.pins--
		s.settle(l)
		if end := l.ended(); end != nil {
			closers = append(closers, end)
		}
	}
	r.closers, r.trees, r.merged = nil, nil, nil
	s.mu.Unlock()
	var errs []error
	for _, c := range closers {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

// live returns an error if r is not a hold of this store. It is called under mu.
func (s *Store) live(r *Ref) error {
	switch {
	case s.closed:
		return ErrClosed
	case r == nil || r.s != s:
		return errors.New("layers are held by another store")
	case r.released:
		return ErrReleased
	}
	return nil
}

// borrow takes a hold on the layers of r for the length of a call.
func (s *Store) borrow(r *Ref) (*Ref, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.live(r); err != nil {
		return nil, err
	}
	return s.hold(r.layers, 1), nil
}

// Scratch returns a hold on the empty stack.
func (s *Store) Scratch() *Ref {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hold(nil, 1)
}

// Stack returns a new hold on the concatenation of stacks, first at the bottom. The stacks stay the caller's. If one was given
// back already, using what is returned fails with [ErrReleased].
func (s *Store) Stack(refs ...*Ref) *Ref {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*layer
	for _, r := range refs {
		if r == nil || r.released {
			return s.deadRef()
		}
		all = append(all, r.layers...)
	}
	return s.hold(all, 1)
}

// Slice returns a new hold on layers [from, to) of a stack. It panics if they are out of range, as slicing does.
func (s *Store) Slice(r *Ref, from, to int) *Ref {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.released {
		return s.deadRef()
	}
	return s.hold(slices.Clone(r.layers[from:to]), 1)
}

// use notes that a layer was asked for. It is called under mu.
func (s *Store) use(l *layer, now time.Time) {
	l.LastUsed = now
	l.Uses++
	l.Retired = false
	s.save(l, false)
}

// callSite is where something was taken, for the report of what was not given back.
type callSite [6]uintptr

func here(skip int) (c callSite) {
	runtime.Callers(skip+2, c[:])
	return c
}

func (c callSite) String() string {
	var b strings.Builder
	n := 0
	for n < len(c) && c[n] != 0 {
		n++
	}
	frames := runtime.CallersFrames(c[:n])
	for {
		f, more := frames.Next()
		if b.Len() > 0 {
			b.WriteString(" < ")
		}
		fmt.Fprintf(&b, "%s:%d", f.Function, f.Line)
		if !more {
			return b.String()
		}
	}
}
