package ops

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"syscall"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/flight"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// selector digests the paths of an input that an op reads.
type selector struct {
	f        *Factory
	input    int
	sel      []fstree.Selector
	required []string
	key      string
	// failed keeps the input for those who want to see why it could not be digested; nil keeps nothing.
	failed *leftovers
}

// newSelector returns a selector of input; what it selects must be in a settled order. Each required path must be there.
func newSelector(f *Factory, input int, sel []fstree.Selector, required []string) solver.Selector {
	return &selector{f: f, input: input, sel: sel, required: required, key: selectorKey(sel, required)}
}

func selectorKey(sel []fstree.Selector, required []string) string {
	var b strings.Builder
	for _, s := range sel {
		fmt.Fprintf(&b, "%q follow=%t wildcard=%t include=%q exclude=%q\n", s.Path, s.Follow, s.Wildcard, s.Include, s.Exclude)
	}
	for _, p := range required {
		fmt.Fprintf(&b, "required %q\n", p)
	}
	return b.String()
}

func (s *selector) Key() string { return s.key }

func (s *selector) Digest(ctx context.Context, call solver.Call, r solver.Result) (digest.Digest, error) {
	if err := s.f.fetchInputToRead(ctx, call, s.input, r); err != nil {
		return "", err
	}
	tree, err := s.f.tree(ctx, RefOf(r))
	if err != nil {
		return "", lost(s.input, err)
	}
	for _, p := range s.required {
		if _, err := fstree.Resolve(ctx, tree, cleanRel(p), false); err != nil {
			return "", s.fail(r, checksumError(idsOf(r), cleanRel(p), err))
		}
	}
	d, err := fstree.DigestAll(ctx, tree, s.sel...)
	if err != nil {
		return "", s.fail(r, checksumError(idsOf(r), s.culprit(ctx, tree), err))
	}
	return d, nil
}

// ReadError says which input of an op could not be read to make its key.
type ReadError struct {
	Input int
	Err   error
}

func (e *ReadError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *ReadError) Unwrap() error { return e.Err }

// fail puts the input beside the error.
func (s *selector) fail(r solver.Result, err error) error {
	err = &ReadError{Input: s.input, Err: err}
	if s.failed == nil || flight.IsContextError(err) {
		return err
	}
	return s.failed.keep(err, []*layers.Ref{s.f.held(r)}, nil)
}

// keepFailed gives the selectors of an op what keeps their inputs.
func keepFailed(list []solver.Selector, failed *leftovers) {
	for _, s := range list {
		if s, ok := s.(*selector); ok {
			s.failed = failed
		}
	}
}

// culprit names the first selected path that is not there, for messages.
func (s *selector) culprit(ctx context.Context, tree fstree.Tree) string {
	for _, sel := range s.sel {
		if sel.Wildcard {
			continue
		}
		if _, err := fstree.Resolve(ctx, tree, sel.Path, sel.Follow); err != nil {
			return sel.Path
		}
	}
	if len(s.sel) > 0 {
		return s.sel[0].Path
	}
	return ""
}

// checksumError is how people know the complaint about a missing source: frontends and users look for these words.
func checksumError(ids []layers.ID, path string, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("failed to compute cache key: failed to calculate checksum of ref %s: %w", refName(ids), err)
	}
	if len(ids) == 0 {
		return fmt.Errorf("failed to compute cache key: failed to calculate checksum of ref scratch: /%s: %w", path, syscall.ENOENT)
	}
	return fmt.Errorf("failed to compute cache key: failed to calculate checksum of ref %s: %w", refName(ids), &NotFoundError{Path: "/" + path})
}

// refName names a stack in messages, by its topmost layer.
func refName(ids []layers.ID) string {
	if len(ids) == 0 {
		return "scratch"
	}
	return string(ids[len(ids)-1])
}

// NotFoundError names a path that a build asked for and that is not in the input it asked.
type NotFoundError struct{ Path string }

func (e *NotFoundError) Error() string { return fmt.Sprintf("%q: not found", e.Path) }

// Unwrap makes it an fs.ErrNotExist.
func (e *NotFoundError) Unwrap() error { return fs.ErrNotExist }

// tree is the merged view of a stack, valid while ref is held. A nil ref is empty.
func (f *Factory) tree(ctx context.Context, ref *layers.Ref) (fstree.Tree, error) {
	if ref == nil || len(ref.Layers()) == 0 {
		return fstree.Empty(), nil
	}
	return f.store.Tree(ctx, ref)
}

// joinRel joins paths from the root.
func joinRel(elem ...string) string {
	return cleanRel(path.Join(elem...))
}
